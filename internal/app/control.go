package app

import (
	"fmt"
	"sync"
	"time"

	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/ingest"
	"felhom.eu/hub/internal/roster"
)

// status is what hub status shows.
type status struct {
	Version    string           `json:"version"`
	StartedAt  time.Time        `json:"started_at"`
	Ready      bool             `json:"ready"`
	Problems   []string         `json:"problems,omitempty"` // why it is not ready
	Warnings   []string         `json:"warnings,omitempty"`
	Fleet      fleetStatus      `json:"fleet"`
	Spool      spoolDetail      `json:"spool"`
	ClickHouse clickhouseDetail `json:"clickhouse"`
	Switch     switchDetail     `json:"switch"`
	Messages   messagesDetail   `json:"messages"`
	Owner      *ownerStatus     `json:"owner,omitempty"` // the one that was asked for
}

// fleetStatus is /api/v1/fleet/status.
type fleetStatus struct {
	roster.Status
	RefusedHosts []refusedHost  `json:"refused_hosts"` // latest first; never null
	Keys         ingest.KeyAges `json:"keys"`          // by the age of their last use
}

// refusedHost is a host whose posts were refused in the last day, or a customer whose
// controllers' were.
type refusedHost struct {
	HostID   string    `json:"host_id"`               // of a customer "customer/<name>"
	Customer string    `json:"customer_id,omitempty"` // where it is enrolled
	Count    int       `json:"count"`
	Last     time.Time `json:"last"`
	Reasons  []refusal `json:"reasons"` // latest first
}

type refusal struct {
	Status  int       `json:"status"` // of HTTP; 401 only for an expired key
	Reason  string    `json:"reason"` // short fixed word, as in hub_replies_total
	Message string    `json:"message"`
	Count   int       `json:"count"`
	Last    time.Time `json:"last"`
}

// ownerStatus is a host, a customer or the fleet with its keys.
type ownerStatus struct {
	Owner      string      `json:"owner"`
	Customer   string      `json:"customer_id,omitempty"` // of a host
	State      string      `json:"state,omitempty"`       // of a host
	LastReport time.Time   `json:"last_report,omitzero"`  // of a host
	Keys       []keyStatus `json:"keys"`
}

type keyStatus struct {
	ID       string    `json:"id"`
	Valid    bool      `json:"valid"` // now
	NotAfter time.Time `json:"not_after,omitzero"`
	LastUse  time.Time `json:"last_use,omitzero"` // as far as this hub knows
}

// status tells everything; owner is empty or names one whose keys are wanted.
func (a *App) status(version, owner string) (any, error) {
	ready := a.readiness()
	s := status{
		Version: version, StartedAt: a.startedAt,
		Ready: len(ready.Problems) == 0, Problems: ready.Problems, Warnings: ready.Warnings,
		Fleet: a.fleetStatus(), Spool: ready.Spool, ClickHouse: ready.ClickHouse, Switch: ready.Switch, Messages: ready.Messages,
	}
	if owner != "" {
		var err error
		if s.Owner, err = a.ownerStatus(owner, a.now()); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (a *App) fleetStatus() fleetStatus {
	return fleetStatus{a.roster.Status(), a.refusedHosts(), a.keyAges.of(a.acceptor)}
}

func (a *App) refusedHosts() []refusedHost {
	fleet := a.roster.Current()
	told := []refusedHost{}
	for _, r := range a.acceptor.RefusedHosts() {
		host := refusedHost{HostID: r.HostID, Count: r.Count, Last: r.Last.UTC()}
		if fleet != nil {
			if h, ok := fleet.Enrolled(r.HostID); ok {
				host.Customer = h.Customer
			}
		}
		if owner, err := hub.ParseOwner(r.HostID); err == nil {
			host.Customer = owner.Name
		}
		for _, reason := range r.Reasons {
			host.Reasons = append(host.Reasons, refusal{httpapi.StatusOf(reason.Code), reason.Reason, reason.Message, reason.Count, reason.Last.UTC()})
		}
		told = append(told, host)
	}
	return told
}

func (a *App) ownerStatus(text string, now time.Time) (*ownerStatus, error) {
	owner, err := hub.ParseOwner(text)
	if err != nil {
		return nil, &hub.Error{Code: hub.Invalid, Reason: "owner", Message: err.Error()}
	}
	fleet := a.roster.Current()
	if fleet == nil {
		return nil, &hub.Error{Code: hub.Unavailable, Reason: "no_fleet", Message: "no fleet is in force yet",
			Hint: "hub status says why"}
	}
	keys, ok := fleet.KeysOf(owner)
	if !ok {
		return nil, &hub.Error{Code: hub.Invalid, Reason: "unknown_owner", Message: fmt.Sprintf("the fleet in force does not know %s", owner),
			Hint: "hub status without it says which commit is in force"}
	}
	told := &ownerStatus{Owner: owner.String(), Keys: []keyStatus{}}
	if host, ok := fleet.Host(owner.Name); ok && owner.Kind == hub.OwnerHost {
		told.Customer, told.State = host.Customer, string(host.Lifecycle)
		if receipt, ok := a.acceptor.LastSeen(host.ID); ok {
			told.LastReport = receipt.ReceivedAt
		}
	}
	for _, k := range keys {
		_, known := fleet.Key(k.Digest)
		used, _ := a.acceptor.LastUse(k)
		told.Keys = append(told.Keys, keyStatus{k.ID, known && k.ValidAt(now), k.NotAfter, used})
	}
	return told, nil
}

// keyAges are counted at most once in ten seconds, however often they are asked
// for: each count looks at every key.
type keyAges struct {
	mu   sync.Mutex
	at   time.Time
	ages ingest.KeyAges
}

const keyAgesKept = 10 * time.Second

func (k *keyAges) of(a *ingest.Acceptor) ingest.KeyAges {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := time.Now(); now.Sub(k.at) >= keyAgesKept {
		k.at, k.ages = now, a.KeyAges()
	}
	return k.ages
}

// controlMetrics are the numbers of keys and refusals.
func (a *App) controlMetrics() []httpapi.Metric {
	list := []httpapi.Metric{{
		Name: "hub_refused_hosts", Help: "Hosts, and customers of controllers, whose posts were refused in the last day: an expired key, another's report, a body that cannot be taken.",
		Value: func() float64 { return float64(len(a.acceptor.RefusedHosts())) },
	}, {
		Name: "hub_locked_out_hosts", Help: "Active hosts that show a key which was theirs until at most a day ago, and were not heard since it ended.",
		Value: func() float64 { return float64(a.acceptor.LockedOut().Hosts) },
	}}
	for label, value := range map[string]func(ingest.KeyAges) int{
		"1h":    func(k ingest.KeyAges) int { return k.Hour },
		"1d":    func(k ingest.KeyAges) int { return k.Day },
		"7d":    func(k ingest.KeyAges) int { return k.Week },
		"30d":   func(k ingest.KeyAges) int { return k.Month },
		"older": func(k ingest.KeyAges) int { return k.Older },
		"never": func(k ingest.KeyAges) int { return k.Never },
	} {
		list = append(list, httpapi.Metric{
			Name: "hub_keys", Help: "Keys in force by the age of their last use; each counts once, in the first that fits.",
			Labels: map[string]string{"last_used": label}, Value: func() float64 { return float64(value(a.keyAges.of(a.acceptor))) },
		})
	}
	return list
}
