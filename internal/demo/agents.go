package demo

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"felhom.eu/hub/internal/simulate"
)

// guestsPerHost is about what a small Proxmox host runs.
const guestsPerHost = 6

// controllersPerHost are the guests of a host in which a controller reports.
const controllersPerHost = 1

// agents are the simulated agents of all enrolled hosts, with the controllers in their
// guests. Hosts may join while others report.
type agents struct {
	url      string
	interval time.Duration
	first    func() // called once, at the first report that was accepted

	once    sync.Once
	running sync.WaitGroup
	mu      sync.Mutex // guards what follows
	hosts   map[string]*simulate.Simulation
	groups  []*simulate.Simulation // those that joined together
}

// join lets the hosts that do not report yet begin, until ctx ends.
func (a *agents) join(ctx context.Context, keys []simulate.Credential) (joined []string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hosts == nil {
		a.hosts = make(map[string]*simulate.Simulation)
	}
	keys = slices.DeleteFunc(slices.Clone(keys), func(c simulate.Credential) bool { return a.hosts[c.HostID] != nil })
	joined = hostsOf(keys)
	if len(joined) == 0 {
		return nil, nil
	}
	group, err := simulate.New(simulate.Options{
		URL: a.url, Keys: keys, Interval: a.interval, Guests: guestsPerHost, Controllers: controllersPerHost,
		Acknowledged: func(string, [sha256.Size]byte) { a.once.Do(a.first) },
	})
	if err != nil {
		return nil, err
	}
	a.groups = append(a.groups, group)
	for _, hostID := range joined {
		a.hosts[hostID] = group
	}
	a.running.Go(func() { group.Run(ctx) })
	return joined, nil
}

// hostsOf returns the hosts among the owners of keys; the others are customers.
func hostsOf(keys []simulate.Credential) (hosts []string) {
	for _, c := range keys {
		if c.HostID != "" {
			hosts = append(hosts, c.HostID)
		}
	}
	return hosts
}

// accepted returns the number of reports and events that the hub accepted.
func (a *agents) accepted() (n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range a.groups {
		n += g.Result().Acknowledged
	}
	return n
}

// steer silences ("stop") or wakes ("start") the agent of one host.
func (a *agents) steer(action, hostID string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	group := a.hosts[hostID]
	switch {
	case group == nil:
		return a.unknown(hostID)
	case action == "stop":
		return group.Pause(hostID)
	}
	return group.Resume(hostID)
}

// unknown names a few hosts, those first that look like what was asked for.
func (a *agents) unknown(hostID string) error {
	known := make([]string, 0, len(a.hosts))
	for id := range a.hosts {
		known = append(known, id)
	}
	slices.Sort(known)
	prefix, _, _ := strings.Cut(hostID, "-")
	slices.SortStableFunc(known, func(x, y string) int {
		switch likeX, likeY := strings.HasPrefix(x, prefix), strings.HasPrefix(y, prefix); {
		case likeX && !likeY:
			return -1
		case likeY && !likeX:
			return 1
		}
		return 0
	})
	const shown = 4
	list := strings.Join(known[:min(shown, len(known))], ", ")
	if len(known) > shown {
		list += ", …"
	}
	return fmt.Errorf("no agent of this demo is called %s; there are %s", hostID, list)
}

// wait returns when all agents have ended, or after d.
func (a *agents) wait(d time.Duration) {
	ended := make(chan struct{})
	go func() { a.running.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(d):
	}
}
