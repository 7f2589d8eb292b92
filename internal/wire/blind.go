package wire

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"felhom.eu/hub/internal/blind"
)

// blindVersion is the version of the encoding; see decisionVersion.
const blindVersion = 1

// Times are Unix milliseconds, as in a decision.
type blindV1 struct {
	Version int         `json:"v"`
	From    int64       `json:"from"`
	To      int64       `json:"to"`
	Cause   blind.Cause `json:"cause"`
}

// EncodeBlind returns the body of a spool record of kind KindBlind. Times keep
// their millisecond and lose what is finer.
func EncodeBlind(i blind.Interval) ([]byte, error) {
	out := blindV1{blindVersion, i.From.UnixMilli(), i.To.UnixMilli(), i.Cause}
	if err := out.check(); err != nil {
		return nil, fmt.Errorf("encode blind time: %w", err)
	}
	return json.Marshal(out)
}

// DecodeBlind reads what EncodeBlind wrote; times are UTC. It refuses another
// version, an unknown field or cause, and an interval without length.
func DecodeBlind(body []byte) (blind.Interval, error) {
	var in blindV1
	if err := json.Unmarshal(body, &in, json.RejectUnknownMembers(true)); err != nil {
		return blind.Interval{}, fmt.Errorf("decode blind time: %w", err)
	}
	if in.Version != blindVersion {
		return blind.Interval{}, fmt.Errorf("decode blind time: version %d is not %d: a newer hub wrote it", in.Version, blindVersion)
	}
	if err := in.check(); err != nil {
		return blind.Interval{}, fmt.Errorf("decode blind time: %w", err)
	}
	return blind.Interval{From: instant(in.From), To: instant(in.To), Cause: in.Cause}, nil
}

func (b blindV1) check() error {
	switch {
	case !b.Cause.Known():
		return fmt.Errorf("%q is no cause", b.Cause)
	case b.From >= b.To:
		return fmt.Errorf("it ends %s after its beginning", time.Duration(b.To-b.From)*time.Millisecond)
	}
	return nil
}
