package ship_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/clickhouse"
	"felhom.eu/hub/internal/hub"
)

// recorder keeps a digest of every block that was sent, by token, and checks that
// the cut that names it was on disk before.
type recorder struct {
	*faulty
	cutFile string // where set: must name the range of each block before it is sent

	mu     sync.Mutex
	sent   map[string]map[[32]byte]int // token → digest → times
	size   map[string]int              // token → rows, of the newest
	first  []string                    // tokens in the order of their first send
	thawed []string                    // tokens that were sent before their cut was written down
}

func (r *recorder) Insert(ctx context.Context, b *clickhouse.Batch, table, token string) error {
	if b.Rows(table) > 0 && !clickhouse.Repeatable(table) {
		r.note(b, table, token)
	}
	return r.faulty.Insert(ctx, b, table, token)
}

func (r *recorder) note(b *clickhouse.Batch, table, token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sent == nil {
		r.sent, r.size = map[string]map[[32]byte]int{}, map[string]int{}
	}
	if r.sent[token] == nil {
		r.sent[token] = map[[32]byte]int{}
		r.first = append(r.first, token)
	}
	r.sent[token][digest(b)]++
	r.size[token] = b.Rows(table)
	if r.cutFile != "" && !r.onDisk(token) {
		r.thawed = append(r.thawed, token)
	}
}

// digest is one of every value in a batch, whatever its pointers are.
func digest(b *clickhouse.Batch) (sum [32]byte) {
	h := sha256.New()
	dump(h, reflect.ValueOf(b))
	return [32]byte(h.Sum(nil))
}

func dump(w io.Writer, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		fmt.Fprint(w, v.IsNil(), "*")
		if !v.IsNil() {
			dump(w, v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type() != reflect.TypeFor[time.Time]() || v.Type().Field(i).Name != "loc" {
				dump(w, v.Field(i))
			}
		}
	case reflect.Slice, reflect.Array:
		fmt.Fprint(w, v.Len(), "[")
		for i := range v.Len() {
			dump(w, v.Index(i))
		}
	default:
		fmt.Fprint(w, v, ",")
	}
}

// onDisk reports whether the cut on disk is the one of this token.
func (r *recorder) onDisk(token string) bool {
	data, err := os.ReadFile(r.cutFile)
	if err != nil {
		return false
	}
	var cut struct {
		SpoolID     hub.SpoolID `json:"spool_id"`
		First, Last uint64
	}
	i := strings.Index(string(data), `{"spool_id"`) // a checksum before it may have a brace too
	if i < 0 || json.Unmarshal(data[i:], &cut) != nil {
		return false
	}
	var table string
	var first, last uint64
	id, rest, _ := strings.Cut(token, "/")
	table, rest, _ = strings.Cut(rest, "/")
	if n, _ := fmt.Sscanf(rest, "%d-%d#", &first, &last); n != 2 || table == "" {
		return false
	}
	return id == cut.SpoolID.String() && cut.First <= first && last <= cut.Last
}

// sameBytes fails where one token went with two different blocks.
func (r *recorder) sameBytes(t *testing.T) (again int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for token, digests := range r.sent {
		if len(digests) != 1 {
			t.Errorf("token %s was used for %d different blocks", token, len(digests))
		}
		for _, n := range digests {
			again += n - 1
		}
	}
	return again
}

// rows returns the size of the first block whose token begins so.
func (r *recorder) rows(prefix string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, token := range r.first {
		if strings.HasPrefix(token, prefix) {
			return r.size[token]
		}
	}
	return -1
}

// A block is written down before it is first sent, and what goes under its token
// later, also from another run of the hub and with more reports waiting behind, is
// the same byte for byte.
func TestI08_FrozenBlocksAreByteIdentical(t *testing.T) {
	f := newFixture(t)
	store := &recorder{faulty: &faulty{DB: f.db}, cutFile: filepath.Join(f.dir, "cut.state")}
	store.lose.Store(3)
	for range 12 {
		f.append(40 + rand.N(60))
		_, stop := f.start(store)
		time.Sleep(rand.N(200 * time.Millisecond))
		f.append(rand.N(60))
		stop()
		f.reopen()
	}
	s, _ := f.start(store)
	f.drained(s)
	f.exactlyOnce(f.n)
	if again := store.sameBytes(t); again < 20 {
		t.Errorf("only %d blocks were sent again: nothing was tried", again)
	}
	if len(store.thawed) > 0 {
		t.Errorf("%d blocks were sent before their cut was on disk, the first %s", len(store.thawed), store.thawed[0])
	}
}

// A spool that is restored from yesterday, and one that is copied and goes on in
// two places, give no token out twice for different rows; no start continues the
// spool id of another.
func TestI09_TokensAreNeverUsedForOtherBytes(t *testing.T) {
	f := newFixture(t)
	store := &recorder{faulty: &faulty{DB: f.db}}
	run := func(reports int) {
		t.Helper()
		s, stop := f.start(store)
		f.append(reports)
		f.drained(s)
		stop()
	}
	run(100)
	if err := f.sp.Close(); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	f.openSpool()
	run(100) // goes on in the one place
	if err := f.sp.Close(); err != nil {
		t.Fatal(err)
	}
	here := f.dir
	f.dir = copied // and in the other
	f.openSpool()
	run(100)
	if err := f.sp.Close(); err != nil {
		t.Fatal(err)
	}
	f.dir = here
	f.openSpool()
	run(100)
	f.exactlyOnce(400)
	store.sameBytes(t)
	f.want("SELECT uniqExact(spool_id) FROM host_reports", "4")
}
