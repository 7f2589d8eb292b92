package app_test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/engine/enginetest"
	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/fleetops"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/roster"
)

// signer makes an SSH key with ssh-keygen and returns its file.
func (s *site) signer(name string) (file string) {
	s.t.Helper()
	file = filepath.Join(s.dir, name)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file).CombinedOutput(); err != nil {
		s.t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	return file
}

// signWith has git sign what the clone commits from now on; without a key it
// does not.
func (s *site) signWith(key string) {
	s.t.Helper()
	if key == "" {
		s.git(s.clone, "config", "commit.gpgSign", "false")
		return
	}
	s.git(s.clone, "config", "gpg.format", "ssh")
	s.git(s.clone, "config", "user.signingKey", key)
	s.git(s.clone, "config", "commit.gpgSign", "true")
}

// allow has the hub demand signatures of these keys. A signer is named as the
// file of the key is.
func (s *site) allow(keys ...string) {
	s.t.Helper()
	var lines strings.Builder
	for _, key := range keys {
		public, err := os.ReadFile(key + ".pub")
		if err != nil {
			s.t.Fatal(err)
		}
		lines.WriteString(filepath.Base(key) + "@example.com " + string(public))
	}
	s.cfg.Fleet.AllowedSignersFile = filepath.Join(s.dir, "allowed_signers")
	if err := os.WriteFile(s.cfg.Fleet.AllowedSignersFile, []byte(lines.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// rewrite puts the clone's files into one commit on top of base, and makes that
// the branch, whatever it was.
func (s *site) rewrite(base, message string) (commit string) {
	s.t.Helper()
	s.git(s.clone, "reset", "-q", "--soft", base)
	s.git(s.clone, "add", "-A")
	s.git(s.clone, "commit", "-q", "-m", message)
	s.git(s.clone, "push", "-q", "--force", "origin", "HEAD:main")
	return s.git(s.clone, "rev-parse", "HEAD")
}

// standing is GET /api/v1/fleet/status, all of it.
func (r *running) standing() (s roster.Status) {
	r.t.Helper()
	_, body := r.get("/api/v1/fleet/status")
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		r.t.Fatalf("%v: %s", err, body)
	}
	return s
}

// inForce waits until a commit is in force.
func (r *running) inForce(commit string) {
	r.t.Helper()
	r.eventually(commit+" in force", func() bool { return r.standing().Revision == commit })
}

// staysOut waits until a head is judged, demands that it is held or rejected for
// a reason while the fleet of inForce stays, and that the status says why and
// what to do next.
func (r *running) staysOut(head, inForce string, verdict hub.Verdict, reason hub.EventType, why, next string) {
	r.t.Helper()
	var s roster.Status
	r.eventually("a verdict on "+head, func() bool {
		s = r.standing()
		return s.Head == head && s.Waiting() && strings.Contains(s.LastError, gitsync.Hash(head).Short())
	})
	if s.Revision != inForce || s.Verdict.Verdict != verdict || s.Verdict.Reason != reason || !strings.Contains(s.Verdict.Why, why) ||
		!strings.Contains(s.Verdict.Release, next) || !strings.Contains(s.LastError, s.Verdict.Why) {
		r.t.Errorf("%s\nwant %s %s, %q and %q, %s in force\n got %s, %+v", head, verdict, reason, why, next, inForce, s.Revision, s)
	}
	if _, metrics := r.get("/metrics"); !strings.Contains(metrics, "\nhub_fleet_head_waiting 1\n") {
		r.t.Error("the metric does not tell that a head waits")
	}
}

// pullsTwice waits until two pulls have begun and ended.
func (r *running) pullsTwice() {
	r.t.Helper()
	for range 3 { // one may be under way
		was := r.standing().CheckedAt
		r.eventually("a pull", func() bool { return r.standing().CheckedAt.After(was) })
	}
}

// reports demands the status of a report.
func (r *running) reports(who, host string, key hub.Secret, want int) {
	r.t.Helper()
	if status := r.report(host, key, 1); status != want {
		r.t.Errorf("%s: %d, want %d", who, status, want)
	}
}

// TestTrustSignedCommits demands that with allowed signers only what they signed
// comes in force: anything else leaves the last good fleet, is told once, and
// waits for a signature or for its signer to be allowed.
func TestTrustSignedCommits(t *testing.T) {
	s := newSite(t)
	s.cfg.Fleet.Interval = 50 * time.Millisecond
	olga, max := s.signer("olga"), s.signer("max")
	s.allow(olga)
	s.signWith(olga)
	host := s.enroll("acme", false)
	good := s.push("signed")
	r := s.startReady()
	if got := r.standing(); got.Revision != good || got.Signer != "olga@example.com" || got.Waiting() {
		t.Fatalf("%+v", got)
	}

	s.signWith("")
	late := s.enroll("acme", false)
	unsigned := s.push("not signed")
	r.staysOut(unsigned, good, hub.CommitRejected, hub.FleetRejected, "it is not signed", "git commit -S")
	r.pullsTwice()
	r.reports("a host of the good fleet", host.HostID, host.APIKey, 200)
	r.reports("a host of the rejected head", late.HostID, late.APIKey, 401)
	const events = "SELECT type, customer_id, host_id, source, severity, position(reason, 'not signed') > 0 FROM events ORDER BY detected_at"
	r.becomes(events, "fleet_rejected\t\t\tfleet\twarning\t1")
	const commits = "SELECT revision, verdict, signer, reason, author, position(why, 'not signed') > 0 FROM fleet_commits ORDER BY decided_at"
	applied := good + "\tapplied\tolga@example.com\t\tTest <test@localhost>\t0"
	rejected := unsigned + "\trejected\t\tfleet_rejected\tTest <test@localhost>\t1"
	r.becomes(commits, applied, rejected)

	// A signature on top does not vouch for what lies below.
	s.signWith(olga)
	s.git(s.clone, "commit", "-q", "--allow-empty", "-m", "signed on top")
	s.git(s.clone, "push", "-q", "origin", "HEAD:main")
	onTop := s.git(s.clone, "rev-parse", "HEAD")
	r.staysOut(onTop, good, hub.CommitRejected, hub.FleetRejected, "commit "+unsigned[:9], "git commit -S")

	mended := s.rewrite(good, "the same, signed")
	r.inForce(mended)
	r.reports("the late host", late.HostID, late.APIKey, 200)
	r.reports("the first host", host.HostID, host.APIKey, 200)
	r.eventually("nothing is wrong", func() bool {
		s := r.standing()
		return !s.Waiting() && s.LastError == "" && s.Signer == "olga@example.com"
	})

	s.signWith(max)
	another := s.enroll("globex", false)
	byMax := s.push("signed by max")
	r.staysOut(byMax, mended, hub.CommitRejected, hub.FleetRejected, "the key that signed it is not in fleet.allowed_signers_file", "fleet.allowed_signers_file")
	r.reports("max' host", another.HostID, another.APIKey, 401)
	s.allow(olga, max)
	r.inForce(byMax)
	r.reports("max' host", another.HostID, another.APIKey, 200)
	if got := r.standing(); got.Signer != "max@example.com" {
		t.Errorf("%+v", got)
	}
	r.pullsTwice()
	r.becomes("SELECT revision, verdict, signer FROM fleet_commits ORDER BY decided_at", good+"\tapplied\tolga@example.com", unsigned+"\trejected\t",
		onTop+"\trejected\t", mended+"\tapplied\tolga@example.com", byMax+"\trejected\t", byMax+"\tapplied\tmax@example.com")
	r.becomes("SELECT type, count(), uniqExact(event_id) FROM events GROUP BY type", "fleet_rejected\t3\t3")
}

// TestTrustMintIsSigned demands that what the hub commits is signed with its own
// key and in force when the reply comes, and that a hub whose commits nobody
// would trust does not start.
func TestTrustMintIsSigned(t *testing.T) {
	s := newSite(t)
	olga, own := s.signer("olga"), s.signer("hub")
	s.allow(olga)
	s.signWith(olga)
	s.enroll("acme", false)
	s.push("signed")
	s.cfg.Fleet.Mint = "direct"
	for name, file := range map[string]string{"no key": "", "a key that is not allowed": own} {
		s.cfg.Fleet.SigningKeyFile = file
		_, err := app.New(app.Options{Config: s.cfg, Launcher: enginetest.Launcher(t)})
		if err == nil || strings.Count(err.Error(), "fleet.signing_key_file") != 1 {
			t.Errorf("%s: %v", name, err)
		}
		if file != "" && (err == nil || !strings.Contains(err.Error(), "add this line to fleet.allowed_signers_file: hub ssh-ed25519 ")) {
			t.Errorf("%s: %v, want what to write where", name, err)
		}
	}

	s.allow(olga, own)
	s.cfg.Fleet.SigningKeyFile = own
	r := s.startReady()
	status, reply := r.post("/api/v1/admin/hosts", s.global, `{"customer_id":"acme","display_name":"Minted"}`)
	var minted struct {
		Host   string `json:"host_id"`
		Key    string `json:"api_key"`
		Commit string `json:"commit"`
	}
	if err := json.Unmarshal([]byte(reply), &minted); err != nil || status != http.StatusCreated {
		t.Fatalf("%d %s", status, reply)
	}
	if got := r.standing(); got.Revision != minted.Commit || got.Signer != "hub@example.com" || got.Waiting() {
		t.Errorf("in force with the reply: %+v, want %s", got, minted.Commit)
	}
	r.reports("the minted key", minted.Host, hub.NewSecret(minted.Key), 200)
	s.git(s.clone, "pull", "-q", "origin", "main")
	if said := s.git(s.clone, "-c", "gpg.ssh.allowedSignersFile="+s.cfg.Fleet.AllowedSignersFile, "verify-commit", minted.Commit); !strings.Contains(said, `Good "git" signature for hub@example.com`) {
		t.Errorf("git says %s", said)
	}
	r.becomes("SELECT verdict, signer, added FROM fleet_commits WHERE revision = '"+minted.Commit+"'", "applied\thub@example.com\t1")
}

// accept is POST /fleet/accept over the control socket.
func (s *site) accept(revision string) (int, string) {
	s.t.Helper()
	return s.tell("/fleet/accept", `{"revision":"`+revision+`"}`)
}

// TestTrustRewoundBranchWaitsForAWord demands that a branch which was rewritten
// behind the commit in force is held, over a restart too, until an operator names
// the head, and that the operator's word outlives the process.
func TestTrustRewoundBranchWaitsForAWord(t *testing.T) {
	s := newSite(t)
	base := s.git(s.clone, "rev-parse", "HEAD")
	gone := s.enroll("acme", false)
	good := s.push("in force")
	r := s.startReady()
	r.inForce(good)

	if err := os.Remove(filepath.Join(s.clone, "fleet", fleetfile.HostPath("acme", gone.HostID))); err != nil {
		t.Fatal(err)
	}
	instead := s.enroll("acme", false)
	rewound := s.rewrite(base, "another history")
	r.Reload()
	held := func() {
		t.Helper()
		r.staysOut(rewound, good, hub.CommitHeld, hub.FleetRewound, "does not descend from "+good[:9], "hub fleet accept "+rewound[:9])
		r.reports("a host of the fleet in force", gone.HostID, gone.APIKey, 200)
		r.reports("a host of the held head", instead.HostID, instead.APIKey, 401)
		r.becomes("SELECT type, customer_id, host_id, source, position(reason, '"+rewound[:9]+"') > 0 FROM events", "fleet_rewound\t\t\tfleet\t1")
		r.becomes("SELECT revision, verdict, reason FROM fleet_commits ORDER BY decided_at", good+"\tapplied\t", rewound+"\theld\tfleet_rewound")
	}
	held()
	r.stop()
	r = s.startReady()
	held()

	if status, reply := s.accept(good); status != http.StatusBadRequest || !strings.Contains(reply, "is not the head of the branch") {
		t.Errorf("accept of another commit: %d %s", status, reply)
	}
	status, reply := s.accept(rewound)
	var told roster.Status
	if err := json.Unmarshal([]byte(reply), &told); err != nil || status != http.StatusOK || told.Revision != rewound || told.Waiting() {
		t.Fatalf("accept: %d %s", status, reply)
	}
	accepted := func() {
		t.Helper()
		if got := r.standing(); got.Revision != rewound {
			t.Errorf("%+v", got)
		}
		r.reports("a host of the accepted head", instead.HostID, instead.APIKey, 200)
		r.reports("a host that it lacks", gone.HostID, gone.APIKey, 401)
	}
	accepted()
	r.stop()
	r = s.startReady()
	r.eventually("a pull", func() bool { return r.standing().Head == rewound && !r.standing().CheckedAt.IsZero() })
	accepted()
	if got := r.standing(); got.Waiting() || got.LastError != "" {
		t.Errorf("after a restart: %+v", got)
	}
	r.becomes("SELECT revision, verdict FROM fleet_commits ORDER BY decided_at", good+"\tapplied", rewound+"\theld", rewound+"\tapplied")
	r.becomes("SELECT count(), uniqExact(event_id) FROM events", "1\t1")
}

// TestTrustMassRemovalIsHeld demands that a commit which removes over a tenth of
// the hosts costs none of them its key until the fleet's file allows the number.
func TestTrustMassRemovalIsHeld(t *testing.T) {
	s := newSite(t)
	hosts, err := fleetops.Enroll(s.clone, fleetops.EnrollOptions{Customer: "acme", Count: 28}) // with the first two: 30
	if err != nil {
		t.Fatal(err)
	}
	good := s.push("30 hosts")
	r := s.startReady()
	r.inForce(good)
	removed := hosts[:4]
	for _, h := range removed {
		if err := os.Remove(filepath.Join(s.clone, "fleet", fleetfile.HostPath("acme", h.HostID))); err != nil {
			t.Fatal(err)
		}
	}
	many := s.push("four are gone")
	r.Reload()
	r.staysOut(many, good, hub.CommitHeld, hub.FleetHeld, "removes or retires 4 of 30 hosts", "set guards.allowRemoval to 4")
	for _, h := range removed {
		r.reports("a host that would be removed", h.HostID, h.APIKey, 200)
	}
	r.becomes("SELECT type, customer_id, host_id, source, position(reason, '4 of 30 hosts') > 0 FROM events", "fleet_held\t\t\tfleet\t1")
	r.becomes("SELECT verdict, reason, hosts, removed FROM fleet_commits ORDER BY decided_at", "applied\t\t30\t0", "held\tfleet_held\t26\t4")

	s.write("fleet.yaml", strings.Replace(s.read("fleet.yaml"), "allowRemoval: 0", "allowRemoval: 4", 1))
	allowed := s.push("four may go")
	r.Reload()
	r.inForce(allowed)
	for _, h := range removed {
		r.reports("a removed host", h.HostID, h.APIKey, 401)
	}
	r.reports("a host that stays", hosts[4].HostID, hosts[4].APIKey, 200)
	r.becomes("SELECT verdict, reason, hosts, removed FROM fleet_commits ORDER BY decided_at", "applied\t\t30\t0", "held\tfleet_held\t26\t4", "applied\t\t26\t4")
	r.becomes("SELECT count() FROM events", "1")
	r.becomes("SELECT count() FROM hosts", "26")
}

// TestTrustBadHostFileCostsThatHostOnly demands that a mistake in one host's file
// leaves that host its last good record, over restarts and without the remote,
// while the rest of the commit is in force, and that it is told once.
func TestTrustBadHostFileCostsThatHostOnly(t *testing.T) {
	s := newSite(t)
	const bad, fine = "acme-bad", "acme-fine"
	oldKey, fineOld := s.enrollAs("acme", bad, nil), s.enrollAs("acme", fine, nil)
	s.push("two hosts")
	r := s.startReady()

	// Both hosts have another key, and the file of one has a mistake besides.
	newKey, fineNew := s.enrollAs("acme", bad, nil), s.enrollAs("acme", fine, nil)
	file := fleetfile.HostPath("acme", bad)
	mended := s.read(file)
	s.write(file, strings.Replace(mended, "state: active", "state: nonsense", 1))
	commit := s.push("one of them is bad")
	r.Reload()
	keeps := func() {
		t.Helper()
		r.inForce(commit)
		r.reports("the bad host, its last good key", bad, oldKey, 200)
		r.reports("the bad host, the key of the bad file", bad, newKey, 401)
		r.reports("the other host, its new key", fine, fineNew, 200)
		r.reports("the other host, its old key", fine, fineOld, 401)
		s := r.standing()
		if s.BadHosts != 1 || len(s.HostProblems) != 1 || !strings.HasSuffix(s.HostProblems[0].File, file) || !strings.Contains(s.HostProblems[0].String(), "nonsense") || s.Waiting() || len(s.Problems) != 0 {
			t.Errorf("%+v", s)
		}
		if _, metrics := r.get("/metrics"); !strings.Contains(metrics, "\nhub_fleet_bad_hosts 1\n") {
			t.Error("the metric does not tell of the bad host")
		}
		r.becomes("SELECT type, customer_id, host_id, source, position(reason, 'keeps its last good record') > 0 FROM events", "host_file_rejected\t\t"+bad+"\tfleet\t1")
		r.becomes("SELECT count(), uniqExact(event_id) FROM events", "1\t1")
	}
	keeps()
	r.becomes("SELECT verdict, changed, bad_files FROM fleet_commits WHERE revision = '"+commit+"'", "applied\t1\t1")

	r.stop()
	if err := os.Rename(s.cfg.Fleet.URL, s.cfg.Fleet.URL+".away"); err != nil {
		t.Fatal(err)
	}
	r = s.startReady()
	r.eventually("the failed pull", func() bool { return r.standing().LastError != "" })
	keeps()
	r.stop()
	if err := os.Rename(s.cfg.Fleet.URL+".away", s.cfg.Fleet.URL); err != nil {
		t.Fatal(err)
	}
	r = s.startReady()
	r.eventually("a pull", func() bool { return !r.standing().CheckedAt.IsZero() })
	keeps()

	s.write(file, mended)
	good := s.push("mended")
	r.Reload()
	r.inForce(good)
	r.reports("the mended host, its new key", bad, newKey, 200)
	r.reports("the mended host, its old key", bad, oldKey, 401)
	if got := r.standing(); got.BadHosts != 0 || len(got.HostProblems) != 0 {
		t.Errorf("%+v", got)
	}
	r.becomes("SELECT count(), uniqExact(event_id) FROM events", "1\t1")
	r.becomes("SELECT verdict, changed, bad_files FROM fleet_commits WHERE revision = '"+good+"'", "applied\t1\t0")
}

// TestTrustLastUseOfKeys demands that the last use of a key is known in
// ClickHouse and to the operator, in the process that saw it and in the next.
func TestTrustLastUseOfKeys(t *testing.T) {
	s := newSite(t)
	host := s.enroll("acme", false)
	s.push("host")
	r := s.startReady()
	r.reports("the host", host.HostID, host.APIKey, 200)
	const uses = "SELECT owner, key_id, last_used_at = (SELECT max(received_at) FROM host_reports) FROM fleet_keys WHERE last_used_at IS NOT NULL"
	lastUse := func(owner string) (at time.Time) {
		t.Helper()
		status, body := s.ask("/status?owner=" + owner)
		var told struct {
			Owner struct {
				Keys []struct {
					ID      string
					LastUse time.Time `json:"last_use"`
				}
			}
		}
		if err := json.Unmarshal([]byte(body), &told); err != nil || status != http.StatusOK || len(told.Owner.Keys) != 1 || told.Owner.Keys[0].ID != "k1" {
			t.Fatalf("%d %s: %v", status, body, err)
		}
		return told.Owner.Keys[0].LastUse
	}
	r.becomesAs(engine.RoleHub, uses, "host/"+host.HostID+"\tk1\t1")
	if got, err := r.tryQuery("SELECT count() FROM fleet_keys"); err == nil || !strings.Contains(err.Error(), "ACCESS_DENIED") {
		t.Errorf("an analyst reads of keys: %q, %v", got, err)
	}
	used := lastUse("host/" + host.HostID)
	if used.IsZero() || time.Since(used) > time.Minute {
		t.Errorf("last use %s", used)
	}

	r.stop()
	r = s.startReady()
	r.becomesAs(engine.RoleHub, uses, "host/"+host.HostID+"\tk1\t1")
	r.eventually("the last use of an earlier run", func() bool { return !lastUse("host/" + host.HostID).IsZero() })
	// A use is noted when the request comes, a report when it is durable.
	again := lastUse("host/" + host.HostID)
	if again.Before(used) || again.Sub(used) > 5*time.Second {
		t.Errorf("last use %s, before the restart %s", again, used)
	}
	r.becomes("SELECT toUnixTimestamp64Milli(received_at) FROM host_reports", strconv.FormatInt(again.UnixMilli(), 10))
	if at := lastUse("fleet"); !at.IsZero() {
		t.Errorf("the global key was never used, but at %s", at)
	}
}
