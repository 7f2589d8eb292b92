package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// inbox is where the demo's operators read what they are told: an Alertmanager, as far
// as the hub's channel needs one, that shows each message on the screen.
type inbox struct {
	server *http.Server
	show   func(text string)
}

// newInbox chooses an address for the inbox of a folder. It stands in the fleet
// repository, so it stays.
func newInbox() (address string, err error) {
	l, err := net.Listen("tcp", loopback(0))
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// channel are the lines of fleet.yaml that have the hub tell the inbox.
func channel(address string) string {
	return fmt.Sprintf("  notify: # by which the operators are told; this demo listens there\n"+
		"    - {name: demo, url: %q, minSeverity: warning}\n"+
		"  outbound: {allow: [127.0.0.0/8]} # private networks that channels may reach\n", "alertmanager+http://"+address)
}

// openInbox listens on the address that was chosen when the folder was made; a folder of
// an older version has none.
func (f folder) openInbox(show func(string)) (*inbox, error) {
	address, err := os.ReadFile(f.path(inboxFile))
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", strings.TrimSpace(string(address)))
	if err != nil {
		return nil, err
	}
	i := &inbox{show: show}
	i.server = &http.Server{Handler: http.HandlerFunc(i.receive), ReadTimeout: 10 * time.Second}
	go func() { _ = i.server.Serve(l) }()
	return i, nil
}

func (i *inbox) receive(w http.ResponseWriter, r *http.Request) {
	var alerts []struct {
		Annotations struct {
			Summary string `json:"summary"`
		} `json:"annotations"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 10<<20)).Decode(&alerts); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	said := ""
	for _, a := range alerts { // the end of an alarm comes once for each of its severities
		if a.Annotations.Summary != said {
			said = a.Annotations.Summary
			i.show(said)
		}
	}
}

func (i *inbox) close(ctx context.Context) error { return i.server.Shutdown(ctx) }
