package torture

import (
	"errors"
	"time"
)

// Fault is one kind of harm.
type Fault struct {
	Name   string
	About  string
	Rounds int // unless told otherwise

	embedded bool // the hub runs its own engine
	spare    int  // hosts beyond those that report all the time

	prepare func(*stand) (undo func() error, err error) // nil: nothing to prepare
	round   func(s *stand, n int) (recovery time.Duration, err error)
}

// errSkip is why a fault cannot be tried on this machine.
var errSkip = errors.New("cannot be tried here")

// Faults lists all of them, in the order in which they are run.
func Faults() []Fault {
	return []Fault{
		{Name: "kill-hub", Rounds: 200, round: killHub,
			About: "kill -9 of the hub under load; recovered: it acknowledges again"},
		{Name: "kill-engine", Rounds: 40, round: killEngine,
			About: "kill -9 of ClickHouse; recovered: what was acknowledged before is in it"},
		{Name: "kill-both", Rounds: 40, round: killBoth, embedded: true,
			About: "kill -9 of the hub and its own engine at once; recovered: it acknowledges again"},
		{Name: "cut", Rounds: 40, round: troubled(trouble{what: cut}),
			About: "the connection breaks after the last byte of an insert; recovered: as kill-engine"},
		{Name: "late", Rounds: 20, round: troubled(trouble{what: late, delay: 300 * time.Millisecond}),
			About: "it breaks at the hub's side, and the insert's last bytes arrive during the retry"},
		{Name: "lost-reply", Rounds: 40, round: troubled(trouble{what: loseReply}),
			About: "ClickHouse's reply to an insert is lost"},
		{Name: "refuse-252", Rounds: 20, round: refused(252),
			About: "inserts are refused with TOO_MANY_PARTS, before or after their data"},
		{Name: "refuse-241", Rounds: 20, round: refused(241),
			About: "inserts are refused with MEMORY_LIMIT_EXCEEDED, before or after their data"},
		{Name: "slow", Rounds: 3, round: troubled(trouble{what: slow, delay: 20 * time.Second}),
			About: "replies to inserts take 20 s"},
		{Name: "full-disk", Rounds: 6, prepare: mountSpool, round: fullDisk,
			About: "no space for the spool, with and without a restart meanwhile; recovered: from free space to an acknowledgement"},
		{Name: "damage", Rounds: 24, round: damage,
			About: "bits flipped, bytes cut off and files removed between two runs, of shipped and of unshipped records"},
		{Name: "two-hubs", Rounds: 5, round: twoHubs,
			About: "a second hub on the same data_dir; recovered: it has refused to start"},
		{Name: "restored-spool", Rounds: 8, round: restoredSpool,
			About: "an older copy of the spool is put back, while ClickHouse has more"},
		{Name: "stop-away", Rounds: 8, round: stopAway,
			About: "SIGTERM under load while ClickHouse is away; recovered: from its return, as kill-engine"},
		{Name: "reconnect", Rounds: 3, round: reconnect, spare: 10_000,
			About: "10,000 agents connect within a second after a restart; recovered: all are acknowledged"},
		{Name: "slow-clients", Rounds: 3, round: slowClients,
			About: "2,000 clients that dribble headers and 1,000 that dribble bodies, beside good ones; recovered: as kill-hub"},
	}
}
