package app_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/yamlfile"
)

// The steps of a rotation, as letters of an order.
const (
	addPulled    = 'A' // the commit that adds the new key is in force
	keySwitched  = 'S' // the agent uses the new key from now on
	goneIsPulled = 'R' // the commit that ends the old key is in force
	posts        = 'P'
)

// orders returns every order of the three steps with three posts among them.
func orders() []string {
	var all []string
	var extend func(order, left string)
	extend = func(order, left string) {
		if left == "" {
			all = append(all, order)
			return
		}
		for i, step := range left {
			if strings.IndexRune(left, step) == i { // the posts are alike
				extend(order+string(step), left[:i]+left[i+1:])
			}
		}
	}
	extend("", "ASRPPP")
	return all
}

// byTheBook reports whether the procedure allows an order: the agent is given
// the new key once that is in force, and the old key goes once a report came
// with the new one.
func byTheBook(order string) bool {
	a, s, r := strings.IndexRune(order, addPulled), strings.IndexRune(order, keySwitched), strings.IndexRune(order, goneIsPulled)
	return a < s && s < r && strings.ContainsRune(order[s:r], posts)
}

// agent is a host that goes through its rotation in one order.
type agent struct {
	fleetops.Enrolled
	order     string
	byEnd     bool // the old key is ended by a notAfter, not removed
	newKey    hub.Secret
	switched  bool
	added     bool
	gone      bool
	usedAt    map[string]time.Time // what the hub's ClickHouse would say
	responses []int
}

func (a *agent) owner() hub.Owner { return hub.HostOwner(a.HostID) }

// TestNoOrderOfARotationLocksAnAgentOut runs every order of the steps of a
// rotation, each with a host of its own, side by side in one hub that follows
// one repository: what the procedure allows never sees a 401, and what it does
// not allow sees one exactly when the key of the moment is not in force.
func TestNoOrderOfARotationLocksAnAgentOut(t *testing.T) {
	s := newSite(t)
	all := orders()
	hosts, err := fleetops.Enroll(s.clone, fleetops.EnrollOptions{Customer: "acme", Count: 2 * len(all)})
	if err != nil {
		t.Fatal(err)
	}
	var agents []*agent
	for i, h := range hosts {
		agents = append(agents, &agent{Enrolled: h, order: all[i/2], byEnd: i%2 == 1, usedAt: map[string]time.Time{}})
	}
	s.push("hosts")
	r := s.startReady()
	for step := range len(all[0]) {
		committed := false
		for _, a := range agents {
			committed = a.commit(t, s, a.order[step]) || committed
		}
		if committed {
			commit := s.push(fmt.Sprintf("step %d", step))
			r.Reload()
			r.eventually("the commit is in force", func() bool { return r.fleetStatus().Revision == commit })
		}
		for _, a := range agents {
			a.act(r, a.order[step])
		}
	}
	allowed, refused := 0, 0
	for _, a := range agents {
		locked := slices.Contains(a.responses, http.StatusUnauthorized)
		if byTheBook(a.order) {
			allowed++
			if locked {
				t.Errorf("%s (by notAfter: %v): %v", a.order, a.byEnd, a.responses)
			}
		} else if locked {
			refused++
		}
	}
	if allowed != 2*10 || refused == 0 {
		t.Errorf("%d orders are by the book, %d others saw a 401", allowed, refused)
	}
}

// commit does a step that changes the agent's file, and reports whether it is one.
func (a *agent) commit(t *testing.T, s *site, step byte) bool {
	t.Helper()
	switch {
	case step == addPulled:
		k, err := fleetops.Rotate(s.clone, a.owner(), time.Now(), time.Now().Add(14*24*time.Hour))
		if err != nil {
			t.Fatal(a.order, err)
		}
		a.newKey, a.added = k.APIKey, true
	case step == goneIsPulled && byTheBook(a.order) && !a.byEnd:
		owner := a.owner()
		done, err := fleetops.Finish(t.Context(), s.clone, fleetops.FinishOptions{Owner: &owner, Now: time.Now(),
			Used: func(context.Context, hub.Owner) (map[string]time.Time, error) { return a.usedAt, nil }})
		if err != nil || len(done) != 1 || len(done[0].Removed) != 1 {
			t.Fatal(a.order, done, err)
		}
		a.gone = true
	case step == goneIsPulled:
		a.endOldKey(t, s)
		a.gone = true
	default:
		return false
	}
	return true
}

// endOldKey takes the first key away, or ends it, as an operator can by hand.
func (a *agent) endOldKey(t *testing.T, s *site) {
	t.Helper()
	name := fleetfile.HostPath("acme", a.HostID)
	edit := yamlfile.Edit{Path: "spec.keys[0]"}
	if a.byEnd {
		edit = yamlfile.Edit{Path: "spec.keys[0].notAfter", Value: time.Now().Add(-time.Second).UTC().Truncate(time.Second), After: "id"}
	}
	data, err := yamlfile.Apply(name, []byte(s.read(name)), edit)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.clone, "fleet", name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// act does a step of the agent's own.
func (a *agent) act(r *running, step byte) {
	r.t.Helper()
	switch step {
	case keySwitched:
		a.switched = true
	case posts:
		key, id, valid := a.APIKey, "k1", !a.gone
		if a.switched {
			key, id, valid = a.newKey, "k2", a.added
		}
		if key.Empty() {
			key = hub.NewKey() // switched before there is a new key
		}
		status := r.report(a.HostID, key, len(a.responses))
		if status == http.StatusTooManyRequests {
			status = http.StatusUnauthorized // so many bad keys at once are told to wait
		}
		a.responses = append(a.responses, status)
		if want := map[bool]int{true: http.StatusOK, false: http.StatusUnauthorized}[valid]; status != want {
			r.t.Errorf("%s (by notAfter: %v): post %d: %d, want %d", a.order, a.byEnd, len(a.responses), status, want)
		}
		a.usedAt[id] = time.Now()
	}
}
