package roster_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1" // of git's ids
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/fleetfile"
	"felhom.eu/hub/internal/gitsync"
	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/roster"
	"felhom.eu/hub/internal/seal"
	"pgregory.net/rapid"
)

var (
	modelHosts   = []string{"h0", "h1", "h2", "h3", "h4", "h5"}
	modelFolders = []string{"acme", "beta"}
)

const (
	modelKeys = 3 // of a host; the last is one secret for all, so two hosts must not have it
	sharedKey = modelKeys - 1
)

// sealedKey is a key as a host's file has it.
type sealedKey struct {
	digest       hub.Digest
	sealed, toID string
}

// vault has every key that a host of the model can have: sealing is slow.
type vault struct {
	identity seal.Identity
	keys     map[string][modelKeys]sealedKey
}

var modelVault = sync.OnceValues(func() (v vault, err error) {
	if v.identity, err = seal.GenerateIdentity(); err != nil {
		return v, err
	}
	v.keys = map[string][modelKeys]sealedKey{}
	shared := hub.NewKey()
	for _, id := range modelHosts {
		var keys [modelKeys]sealedKey
		for i := range keys {
			secret := hub.NewKey()
			if i == sharedKey {
				secret = shared
			}
			sealed, to, err := seal.Seal(seal.Payload{Owner: hub.HostOwner(id), KeyID: "k1", Key: secret}, []seal.Recipient{v.identity.Recipient()})
			if err != nil {
				return v, err
			}
			digest, err := hub.DigestKey(secret.Reveal())
			if err != nil {
				return v, err
			}
			keys[i] = sealedKey{digest, strings.ReplaceAll(strings.TrimSpace(sealed), "\n", "\n        "), to[0]}
		}
		v.keys[id] = keys
	}
	return v, nil
})

// card is a host's file as the model knows it, and the record that a good one is.
type card struct {
	id, folder, name string
	state            hub.Lifecycle
	key              int
	flaw             string // "": none
}

var flaws = []string{"syntax", "unknown key", "seal of another", "customer of another"}

func (c card) path() string { return fleetfile.HostPath(c.folder, c.id) }

// bad says whether the file has a mistake: seals of retired hosts are not opened.
func (c card) bad() bool {
	return c.flaw != "" && (c.flaw != "seal of another" || c.state != hub.Retired)
}

func (c card) text(v vault) string {
	key, customer, more := v.keys[c.id][c.key], c.folder, ""
	switch c.flaw {
	case "syntax":
		more = "\t: ["
	case "unknown key":
		more = "  stat: active\n"
	case "seal of another":
		key = v.keys[other(modelHosts, c.id)][c.key]
	case "customer of another":
		customer = other(modelFolders, c.folder)
	}
	return fmt.Sprintf(`apiVersion: hub.felhom.eu/v1
kind: Host
metadata: {name: %s, customer: %s}
spec:
  displayName: %s
  state: %s
  keys:
    - id: k1
      sealedTo: [%s]
      sealed: |
        %s
%s`, c.id, customer, c.name, c.state, key.toID, key.sealed, more)
}

func other(of []string, than string) string {
	return of[(slices.Index(of, than)+1)%len(of)]
}

// tree is the fleet folder of a commit.
type tree struct {
	cards     map[string]card   // by path
	customers map[string]string // "good" or "broken", by folder
	stray     bool              // a file out of place
	allow     int               // guards.allowRemoval
}

func (t tree) clone() tree {
	t.cards, t.customers = maps.Clone(t.cards), maps.Clone(t.customers)
	return t
}

// firstTree has n good hosts.
func firstTree(n int) tree {
	t := tree{cards: map[string]card{}, customers: map[string]string{"acme": "good", "beta": "good"}}
	for i, id := range modelHosts[:n] {
		t.put(card{id: id, folder: modelFolders[i%2], name: "n0", state: hub.Active})
	}
	return t
}

// put makes c the only file of its host.
func (t tree) put(c card) {
	t.remove(c.id)
	t.cards[c.path()] = c
}

func (t tree) remove(id string) {
	for _, folder := range modelFolders {
		delete(t.cards, fleetfile.HostPath(folder, id))
	}
}

// card returns the file of a host, as it would be if it had none.
func (t tree) card(id string) (card, bool) {
	for _, folder := range modelFolders {
		if c, ok := t.cards[fleetfile.HostPath(folder, id)]; ok {
			return c, true
		}
	}
	return card{id: id, folder: modelFolders[0], name: "n0", state: hub.Active}, false
}

// mend takes every mistake away.
func (t *tree) mend() {
	t.customers, t.stray = map[string]string{"acme": "good", "beta": "good"}, false
	for _, id := range modelHosts {
		if c, ok := t.card(id); ok {
			if c.flaw = ""; c.key == sharedKey {
				c.key = 0
			}
			t.put(c)
		}
	}
}

func (t tree) files(v vault) map[string]string {
	const kind = "apiVersion: hub.felhom.eu/v1\nkind: %s\nmetadata: {name: %s}\nspec: {%s}\n"
	files := map[string]string{
		fleetfile.FleetPath:      fmt.Sprintf(kind, "Fleet", "felhom", fmt.Sprintf("guards: {allowRemoval: %d}", t.allow)),
		fleetfile.RecipientsPath: v.identity.Recipient().String() + "\n",
	}
	for folder, how := range t.customers {
		text := fmt.Sprintf(kind, "Customer", folder, "")
		if how == "broken" {
			text += "more: [\n"
		}
		files[fleetfile.CustomerPath(folder)] = text
	}
	if t.stray {
		files["customers/stray.yaml"] = "a: b\n"
	}
	for path, c := range t.cards {
		files[path] = c.text(v)
	}
	return files
}

// snapshot is a commit.
type snapshot struct {
	id     string
	parent *snapshot
	tree   tree
}

func (s *snapshot) descends(from *snapshot) bool {
	for ; s != nil; s = s.parent {
		if s == from {
			return true
		}
	}
	return false
}

// model is what the rules say, written without a look at how the roster does it.
type model struct {
	vault    vault
	head     *snapshot // of the remote
	away     bool      // the remote
	inForce  *snapshot // kept by the mirror; nil: none
	records  map[string]card
	loaded   bool          // inForce is in force in this process
	broken   bool          // the mirror, until the remote answers
	store    map[card]bool // contents that the mirror has
	lost     bool          // the mirror no longer says what is in force
	dropped  []string      // hosts whose last good records it no longer names
	accepted *snapshot

	seen    *snapshot // head by the status
	verdict string    // and what was decided
	rows    map[string]bool
	events  map[string]bool
}

// start is what a new process does.
func (m *model) start() {
	m.loaded, m.seen, m.verdict = false, nil, ""
	if m.lost {
		m.forget()
	}
	for _, id := range m.dropped {
		delete(m.records, id)
	}
	m.dropped = nil
	m.broken = m.broken || len(m.unreadable()) > 0
	m.restore()
	m.pull()
}

func (m *model) restore() {
	if m.loaded || m.inForce == nil || m.broken {
		return
	}
	m.loaded = true
	m.decide(m.inForce, hub.CommitApplied, "")
}

func (m *model) pull() {
	if m.away {
		return
	}
	m.heal()
	m.restore()
	m.judge(m.head)
}

// heal clones a broken mirror anew, which then has what the remote still has: of
// what is in force perhaps nothing, or not every last good record. This process
// does not mind; the next one does.
func (m *model) heal() {
	if m.broken {
		m.broken, m.store = false, map[card]bool{}
		m.lost = m.lost || m.inForce != nil && !m.head.descends(m.inForce)
		defer func() {
			if m.loaded && !m.lost {
				m.dropped = m.unreadable()
			}
		}()
	}
	for s := m.head; s != nil; s = s.parent {
		for _, c := range s.tree.cards {
			m.store[c] = true
		}
	}
	if m.loaded || m.inForce == nil {
		return
	}
	if m.lost {
		m.forget()
		return
	}
	for _, id := range m.unreadable() {
		delete(m.records, id)
	}
}

// unreadable lists the hosts whose last good records the mirror does not have.
func (m *model) unreadable() (ids []string) {
	for id, record := range m.records {
		if c, _ := m.inForce.tree.card(id); c != record && !m.store[record] {
			ids = append(ids, id)
		}
	}
	return ids
}

// forget is a mirror that is gone.
func (m *model) forget() {
	m.inForce, m.records, m.lost, m.dropped = nil, map[string]card{}, false, nil
}

func (m *model) judge(head *snapshot) {
	if head == m.inForce {
		m.decide(head, hub.CommitApplied, "")
		return
	}
	if m.inForce != nil && head != m.accepted && !head.descends(m.inForce) {
		m.decide(head, hub.CommitHeld, hub.FleetRewound)
		return
	}
	records, whole := m.content(head.tree)
	if !whole {
		m.decide(head, hub.CommitRejected, hub.FleetRejected)
		return
	}
	before, removed := 0, 0
	for id, c := range m.records {
		if c.state == hub.Retired {
			continue
		}
		before++
		if now, ok := records[id]; !ok || now.state == hub.Retired {
			removed++
		}
	}
	if hub.RemovalHeld(before, removed, head.tree.allow) {
		m.decide(head, hub.CommitHeld, hub.FleetHeld)
		return
	}
	m.inForce, m.records, m.loaded, m.lost, m.dropped = head, records, true, false, nil
	m.accepted = nil // the word was for this rewind
	m.decide(head, hub.CommitApplied, "")
}

// content returns the records that a tree would put in force, and whether it is a
// fleet as a whole.
func (m *model) content(t tree) (records map[string]card, whole bool) {
	records, whole = map[string]card{}, !t.stray
	seen, keys := map[string]bool{}, map[hub.Digest]bool{}
	for _, c := range t.cards {
		if seen[c.id] {
			whole = false
		}
		seen[c.id] = true
		if last, ok := m.records[c.id]; c.bad() && ok {
			records[c.id] = last
		} else if !c.bad() {
			records[c.id] = c
		}
	}
	for _, how := range t.customers {
		whole = whole && how == "good"
	}
	for _, c := range records {
		if _, ok := t.customers[c.folder]; !ok {
			whole = false
		}
		if digest := m.digest(c, c.key); c.state != hub.Retired {
			whole = whole && !keys[digest]
			keys[digest] = true
		}
	}
	return records, whole
}

func (m *model) digest(c card, key int) hub.Digest { return m.vault.keys[c.id][key].digest }

func (m *model) decide(head *snapshot, v hub.Verdict, reason hub.EventType) {
	m.seen, m.verdict = head, fmt.Sprintf("%s %s %s", v, reason, head.id)
	m.rows[m.verdict] = true
	if v != hub.CommitApplied {
		m.events[hub.FleetEventID(reason, head.id)] = true
		return
	}
	for path, c := range head.tree.cards {
		if c.bad() {
			m.events[hub.FleetEventID(hub.HostFileRejected, path+"\n"+gitID("blob", c.text(m.vault)))] = true
		}
	}
}

// origin is a bare repository; the sequences of a test share its objects.
type origin struct {
	dir   string
	known map[string]bool // objects that are there
	z     *zlib.Writer
}

func newOrigin(t *testing.T) *origin {
	z, err := zlib.NewWriterLevel(nil, zlib.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{filepath.Join(t.TempDir(), "origin.git"), map[string]bool{}, z}
	git(t, filepath.Dir(o.dir), "init", "-q", "--bare", "--template=", "-b", "main", o.dir)
	git(t, o.dir, "config", "pack.threads", "1")
	return o
}

// world is the real thing beside the model.
type world struct {
	rapid.TB
	model
	origin  *origin
	dir     string // holds the mirror
	commits []*snapshot
	kept    memory
	told    []hub.Notice
	repo    *gitsync.Repo
	rost    *roster.Roster
	onPull  func()
}

// newWorld has a repository with one commit, which nobody has pulled yet.
func newWorld(t rapid.TB, o *origin, first tree) *world {
	v, err := modelVault()
	w := &world{TB: t, origin: o, kept: memory{}, onPull: func() {}, model: model{
		vault: v, records: map[string]card{}, store: map[card]bool{}, rows: map[string]bool{}, events: map[string]bool{}}}
	w.must(err)
	w.dir, err = os.MkdirTemp(filepath.Dir(o.dir), "hub-*")
	w.must(err)
	w.commit(nil, first)
	return w
}

// close leaves the origin as it was.
func (w *world) close() {
	w.stop()
	if w.away {
		w.setAway(false)
	}
	w.must(os.RemoveAll(w.dir))
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) mirror() string { return filepath.Join(w.dir, "mirror.git") }

func (w *world) bare() string {
	if w.away {
		return w.origin.dir + ".away"
	}
	return w.origin.dir
}

// commit makes a commit and the head of it.
func (w *world) commit(parent *snapshot, t tree) {
	files := map[string]string{}
	for name, content := range t.files(w.vault) {
		files["fleet/"+name] = content
	}
	text := "tree " + w.tree(files, "") + "\n"
	if parent != nil {
		text += "parent " + parent.id + "\n"
	}
	who := fmt.Sprintf("Olga <olga@example.com> %d +0000", 1_800_000_000+len(w.commits))
	s := &snapshot{parent: parent, tree: t, id: w.object("commit", text+"author "+who+"\ncommitter "+who+"\n\nfleet\n")}
	w.commits = append(w.commits, s)
	w.push(s)
}

// push makes s the head, by force.
func (w *world) push(s *snapshot) {
	w.head = s
	w.must(os.WriteFile(filepath.Join(w.bare(), "refs", "heads", "main"), []byte(s.id+"\n"), 0o600))
}

// tree writes the folder at prefix as git has it.
func (w *world) tree(files map[string]string, prefix string) string {
	entries := map[string]string{} // by the name that git sorts by
	for path, content := range files {
		rest, ok := strings.CutPrefix(path, prefix)
		if !ok {
			continue
		}
		name, _, folder := strings.Cut(rest, "/")
		if _, known := entries[name+"/"]; known {
			continue
		}
		if folder {
			id, _ := hex.DecodeString(w.tree(files, prefix+name+"/"))
			entries[name+"/"] = "40000 " + name + "\x00" + string(id)
			continue
		}
		id, _ := hex.DecodeString(w.object("blob", content))
		entries[name] = "100644 " + name + "\x00" + string(id)
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		text.WriteString(entries[name])
	}
	return w.object("tree", text.String())
}

func (w *world) object(kind, text string) string {
	id := gitID(kind, text)
	if w.origin.known[id] {
		return id
	}
	var packed bytes.Buffer
	w.origin.z.Reset(&packed)
	_, err := fmt.Fprintf(w.origin.z, "%s %d\x00%s", kind, len(text), text)
	w.must(err)
	w.must(w.origin.z.Close())
	path := filepath.Join(w.bare(), "objects", id[:2], id[2:])
	w.must(os.MkdirAll(filepath.Dir(path), 0o700))
	w.must(os.WriteFile(path, packed.Bytes(), 0o600))
	w.origin.known[id] = true
	return id
}

func gitID(kind, text string) string {
	sum := sha1.Sum(fmt.Appendf(nil, "%s %d\x00%s", kind, len(text), text))
	return hex.EncodeToString(sum[:])
}

// setAway takes the remote away, or brings it back.
func (w *world) setAway(away bool) {
	was := w.bare()
	w.away = away
	w.must(os.Rename(was, w.bare()))
}

// stop ends the process.
func (w *world) stop() {
	if w.repo != nil {
		w.must(w.repo.Close())
	}
	w.repo, w.rost = nil, nil
}

// restart begins a new process and waits for the first pull.
func (w *world) restart() {
	w.Helper()
	w.stop()
	repo, err := gitsync.Open(gitsync.Options{URL: w.origin.dir, Dir: w.mirror()})
	w.must(err)
	w.repo = repo
	w.rost = roster.New(roster.Options{
		Source: repo, Path: "fleet", Interval: time.Hour, Memory: w.kept,
		Load:     fleetfile.NewLoader(seal.NewOpener([]seal.Identity{w.vault.identity}), hub.Thresholds{}).Load,
		Announce: func(n hub.Notice) error { w.told = append(w.told, n); return nil },
		OnPull:   func(roster.Result, time.Duration) { w.onPull() },
	})
	w.run(1)
	w.start()
	w.check("restart")
}

// run follows the repository for some pulls.
func (w *world) run(pulls int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.onPull = func() {
		if pulls--; pulls == 0 {
			cancel()
		}
	}
	w.rost.Run(ctx)
	w.onPull = func() {}
}

func (w *world) pull() {
	w.Helper()
	if w.rost == nil {
		w.restart()
		return
	}
	_ = w.rost.Pull(context.Background())
	w.model.pull()
	w.check("pull")
}

// trigger is what a webhook does: a pull, and one that judges anew.
func (w *world) trigger() {
	w.Helper()
	if w.rost == nil {
		w.restart()
	}
	w.rost.Trigger()
	w.run(2)
	w.restore()
	w.model.pull()
	w.model.pull()
	w.check("trigger")
}

// accept is an operator's word for the head.
func (w *world) accept() {
	w.Helper()
	if w.rost == nil {
		w.restart()
	}
	err := w.rost.Accept(context.Background(), w.head.id)
	if !w.away {
		w.heal()
		if !w.loaded || w.head != w.inForce {
			w.accepted = w.head
			w.model.pull()
		}
	}
	w.check("accept")
	if inForce := !w.away && w.loaded && w.head == w.inForce; err == nil && !inForce {
		w.Errorf("accepted %s, which is not in force", w.head.id)
	}
}

// damage cuts every pack of the mirror short.
func (w *world) damage() {
	packs, err := filepath.Glob(filepath.Join(w.mirror(), "objects", "pack", "*.pack"))
	w.must(err)
	for _, p := range packs {
		w.must(os.Chmod(p, 0o600))
		w.must(os.Truncate(p, 30))
	}
	w.broken = w.broken || len(packs) > 0
}

// lose removes the mirror.
func (w *world) lose() {
	w.must(os.RemoveAll(w.mirror()))
	w.broken, w.lost, w.store = false, w.inForce != nil, map[card]bool{}
}

// check compares what is in force and what was told with the model.
func (w *world) check(after string) {
	w.Helper()
	if want, got := w.wantFleet(), w.gotFleet(); want != got {
		w.Errorf("after %s in force is\n%s, want\n%s", after, got, want)
	}
	s, revision, seen, bad := w.rost.Status(), "", "", 0
	if w.loaded {
		revision = w.inForce.id
		for _, c := range w.inForce.tree.cards {
			if c.bad() {
				bad++
			}
		}
	}
	verdict := ""
	if w.seen != nil {
		seen, verdict = w.seen.id, fmt.Sprintf("%s %s %s", s.Verdict.Verdict, s.Verdict.Reason, s.Head)
	}
	if s.Revision != revision || s.Head != seen || verdict != w.verdict || s.BadHosts != bad {
		w.Errorf("after %s the status is %+v\nwant revision %q, head %q, verdict %q, %d bad hosts", after, s, revision, seen, w.verdict, bad)
	}
	rows, exact, events := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, n := range w.told {
		for _, c := range n.Commits {
			row := fmt.Sprintf("%s %s %s", c.Verdict, c.Reason, c.Revision)
			rows[row] = true
			if exact[row+c.Why] {
				w.Errorf("after %s the row %s: %s was told twice", after, row, c.Why)
			}
			exact[row+c.Why] = true
		}
		for _, e := range n.Events {
			if events[e.ID] {
				w.Errorf("after %s the event %s of %s was told twice", after, e.Type, e.HostID)
			}
			events[e.ID] = true
		}
	}
	if !maps.Equal(rows, w.rows) || !maps.Equal(events, w.events) {
		w.Errorf("after %s told are %v and %d events, want %v and %d", after, slices.Sorted(maps.Keys(rows)), len(events), slices.Sorted(maps.Keys(w.rows)), len(w.events))
	}
	if w.Failed() {
		w.FailNow()
	}
}

func (w *world) wantFleet() string {
	if !w.loaded {
		return "nothing"
	}
	var text strings.Builder
	for _, id := range slices.Sorted(maps.Keys(w.records)) {
		c := w.records[id]
		fmt.Fprintf(&text, "%s of %s, %s, %s, keys", id, c.folder, c.name, c.state)
		if c.state != hub.Retired {
			fmt.Fprint(&text, " ", c.key)
		}
		text.WriteString("\n")
	}
	return text.String()
}

func (w *world) gotFleet() string {
	fleet := w.rost.Current()
	if fleet == nil {
		return "nothing"
	}
	var text strings.Builder
	for h := range fleet.Hosts() {
		fmt.Fprintf(&text, "%s of %s, %s, %s, keys", h.ID, h.Customer, h.DisplayName, h.Lifecycle)
		for i, key := range w.vault.keys[h.ID] {
			if k, ok := fleet.Key(key.digest); ok && k.Owner == hub.HostOwner(h.ID) {
				fmt.Fprint(&text, " ", i)
			}
		}
		text.WriteString("\n")
	}
	return text.String()
}

// draw is the sequence that rapid makes up.
type draw struct {
	*rapid.T
	*world
}

func pick[E any](d draw, label string, from ...E) E {
	return rapid.SampledFrom(from).Draw(d.T, label)
}

// edit changes a tree as people do, mistakes included.
func (d draw) edit(t *tree) {
	id := pick(d, "host", modelHosts...)
	c, _ := t.card(id)
	switch pick(d, "edit", "change", "change", "flaw", "flaw", "move", "state", "remove", "many", "many", "customer", "stray", "twice", "allow", "mend") {
	case "change":
		c.name, c.key, c.flaw = pick(d, "name", "n0", "n1", "n2"), pick(d, "key", 0, 0, 0, 1, 1, 1, sharedKey), ""
		t.put(c)
	case "flaw":
		c.flaw = pick(d, "flaw", flaws...)
		t.put(c)
	case "move":
		c.folder, c.flaw = other(modelFolders, c.folder), pick(d, "flaw", "", "", flaws[0], flaws[3])
		t.put(c)
	case "state":
		c.state = pick(d, "state", hub.Active, hub.Paused, hub.Retired)
		t.put(c)
	case "remove":
		t.remove(id)
	case "many":
		t.allow = pick(d, "allow", 0, 0, 3, 6)
		for _, id := range modelHosts[:pick(d, "removed", 2, 3, 4, 6)] {
			if c, ok := t.card(id); ok && pick(d, "retire", true, false) {
				c.state = hub.Retired
				t.put(c)
			} else {
				t.remove(id)
			}
		}
	case "customer":
		folder := pick(d, "folder", modelFolders...)
		if how := pick(d, "how", "good", "broken", ""); how == "" {
			delete(t.customers, folder)
		} else {
			t.customers[folder] = how
		}
	case "stray":
		t.stray = !t.stray
	case "twice":
		c.folder = other(modelFolders, c.folder)
		t.cards[c.path()] = c
	case "allow":
		t.allow = pick(d, "allow", 0, 3, 6)
	case "mend":
		t.mend()
	}
}

func (d draw) step() {
	what := pick(d, "step", "commit", "commit", "commit", "commit", "commit", "commit", "good", "good", "mend", "rewind", "accept", "accept", "back", "pull", "trigger", "restart", "restart", "away", "damage", "lose")
	switch what {
	case "commit":
		t := d.head.tree.clone()
		for range pick(d, "edits", 1, 1, 2, 3) {
			d.edit(&t)
		}
		d.commit(d.head, t)
		d.maybePull()
	case "good": // every host is there and well
		t := firstTree(len(modelHosts))
		for _, id := range modelHosts {
			t.put(card{id: id, folder: pick(d, "folder", modelFolders...), name: pick(d, "name", "n3", "n4"), state: hub.Active, key: pick(d, "key", 0, 1)})
		}
		d.commit(d.head, t)
		d.maybePull()
	case "mend":
		t := d.head.tree.clone()
		t.mend()
		d.commit(d.head, t)
		d.maybePull()
	case "rewind":
		d.push(pick(d, "to", d.commits...))
		d.maybePull()
	case "accept":
		d.accept()
	case "back": // a head that descends from what is in force again
		if d.inForce != nil {
			t := d.inForce.tree.clone()
			d.edit(&t)
			d.commit(d.inForce, t)
			d.maybePull()
		}
	case "pull":
		d.pull()
	case "trigger":
		d.trigger()
	case "restart":
		d.restart()
	case "away":
		d.setAway(!d.away)
		d.maybePull()
	case "damage", "lose":
		if what == "damage" {
			d.damage()
		} else {
			d.lose()
		}
		if pick(d, "stopped", true, false) {
			d.stop()
		}
		d.maybePull()
	}
}

func (d draw) maybePull() {
	if pick(d, "then", true, true, true, false) {
		d.pull()
	}
}

// For any sequence of commits, good and bad, in force is exactly the last good
// state of each host under the rules.
func TestAnySequenceOfCommits(t *testing.T) {
	o := newOrigin(t)
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, o, firstTree(rapid.IntRange(0, len(modelHosts)).Draw(rt, "hosts")))
		defer w.close()
		for range rapid.IntRange(2, 10).Draw(rt, "steps") {
			draw{rt, w}.step()
		}
	})
}

// found runs a sequence that went wrong once.
func found(t *testing.T, hosts int, steps func(w *world, t tree)) {
	w := newWorld(t, newOrigin(t), firstTree(hosts))
	defer w.close()
	steps(w, w.head.tree.clone())
}

// A damaged mirror is mended by the first pull: what was in force comes back
// before the head is judged, which here is no fleet.
func TestMendedMirrorBringsBackWhatWasInForce(t *testing.T) {
	found(t, 2, func(w *world, t tree) {
		w.restart()
		w.stop()
		w.damage()
		delete(t.customers, "acme")
		w.commit(w.head, t)
		w.restart()
	})
}

// And a host whose file is bad in the head keeps its record.
func TestMendedMirrorKeepsLastGoodRecords(t *testing.T) {
	found(t, 2, func(w *world, t tree) {
		w.restart()
		w.stop()
		w.damage()
		c, _ := t.card("h0")
		c.flaw = flaws[0]
		t.put(c)
		w.commit(w.head, t)
		w.restart()
		w.restart()
	})
}

// rewoundBeside puts a head in force, by an operator's word, where h0 is bad and
// keeps a record that no commit of the branch has.
func rewoundBeside(w *world, t tree) {
	first := w.head
	w.restart()
	c, _ := t.card("h0")
	c.name = "n1"
	t.put(c)
	w.commit(first, t.clone())
	w.pull()
	c.flaw = flaws[0]
	t.put(c)
	w.commit(first, t.clone())
	w.pull()
	w.accept()
}

// A mirror that is damaged while the hub runs is mended, though what was in force
// is not to be had again.
func TestMirrorDamagedWhileRunningIsMended(t *testing.T) {
	found(t, 2, func(w *world, t tree) {
		rewoundBeside(w, t)
		w.damage()
		w.pull()
		t.stray = true
		w.commit(w.head, t)
		w.pull()
		w.restart()
	})
}

// A head that was held stays so when the mirror is lost while the hub runs.
func TestLostMirrorReleasesNoRewind(t *testing.T) {
	found(t, 2, func(w *world, t tree) {
		w.restart()
		first := w.head
		w.commit(first, t.clone())
		w.pull()
		w.push(first)
		w.pull()
		w.lose()
		w.trigger()
	})
}

// A start does not fail for a last good record that was lost with the mirror.
func TestLostRecordDoesNotStopTheStart(t *testing.T) {
	found(t, 2, func(w *world, t tree) {
		rewoundBeside(w, t)
		w.lose()
		t.allow = 1
		w.commit(w.head, t)
		w.pull()
		w.restart()
		w.pull()
		w.restart()
	})
}

// An operator's word for a head that another rule kept out ends with the next
// head in force: going back to it is another rewind.
func TestAcceptedHeadIsNoRewindForEver(t *testing.T) {
	found(t, 3, func(w *world, t tree) {
		w.restart()
		none := t.clone()
		clear(none.cards)
		w.commit(w.head, none)
		held := w.head
		w.accept()
		w.commit(held, t)
		w.pull()
		w.push(held)
		w.pull()
	})
}
