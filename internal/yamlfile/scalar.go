package yamlfile

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. Its text is a whole number with an optional unit:
// B, KiB, MiB, GiB, TiB (1024) or KB, MB, GB, TB (1000).
type Size int64

var sizeUnits = []struct {
	name  string
	bytes Size
}{ // largest first among the 1024s: String takes the first that fits
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

// String returns the text with the largest unit that loses nothing.
func (s Size) String() string {
	for _, u := range sizeUnits[:4] {
		if s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	errNoSize := fmt.Errorf("%q is no size: write 512MiB or 8GiB", text)
	number, unit := string(text), Size(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimRight(rest, " "), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || n > uint64(math.MaxInt64/unit) {
		return errNoSize
	}
	*s = Size(n) * unit
	return nil
}

// Rate is a number of events a second. Its text is "10/s", "600/m", "36000/h" or "0".
type Rate float64

// String returns the text, per second.
func (r Rate) String() string { return strconv.FormatFloat(float64(r), 'g', -1, 64) + "/s" }

// MarshalText implements encoding.TextMarshaler.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Rate) UnmarshalText(text []byte) error {
	if string(text) == "0" {
		*r = 0
		return nil
	}
	number, unit, _ := strings.Cut(string(text), "/")
	seconds, known := map[string]float64{"s": 1, "m": 60, "h": 3600}[unit]
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !known || n < 0 || math.IsInf(n, 0) || math.IsNaN(n) {
		return fmt.Errorf("%q is no rate: write 10/s or 600/m", text)
	}
	*r = Rate(n / seconds)
	return nil
}

const day = 24 * time.Hour

// ParseDuration reads Go's durations and "d" for 24 hours, which comes first:
// "90d", "1d12h". 0 needs no unit.
func ParseDuration(text string) (time.Duration, error) {
	errNoDuration := fmt.Errorf("%q is no duration: write 90s, 30m, 1h30m or 14d", text)
	days, rest, hasDays := strings.Cut(text, "d")
	if !hasDays {
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, errNoDuration
		}
		return d, nil
	}
	n, err := strconv.ParseUint(days, 10, 32)
	if err != nil || n > uint64(math.MaxInt64/day) || strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
		return 0, errNoDuration
	}
	total := time.Duration(n) * day
	if rest == "" {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || total+d < total {
		return 0, errNoDuration
	}
	return total + d, nil
}

// Set stores the value that text means in what into points to: a string, bool,
// number, time.Duration, time.Time or a type with UnmarshalText. It reads as
// Decode does, so that a value may also come from a flag or the environment.
func Set(into any, text string) error { return setScalar(reflect.ValueOf(into).Elem(), text) }

var (
	durationType        = reflect.TypeFor[time.Duration]()
	timeType            = reflect.TypeFor[time.Time]()
	textUnmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// isScalar reports whether setScalar can store into values of type t.
func isScalar(t reflect.Type) bool {
	if reflect.PointerTo(t).Implements(textUnmarshalerType) {
		return true
	}
	return t.Kind() == reflect.String || t.Kind() == reflect.Bool || isNumber(t)
}

func isNumber(t reflect.Type) bool {
	return t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64 && t.Kind() != reflect.Uintptr
}

func setScalar(v reflect.Value, text string) error {
	switch v.Type() {
	case durationType:
		d, err := ParseDuration(text)
		v.SetInt(int64(d))
		return err
	case timeType:
		t, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return fmt.Errorf("%q is no time: write 2027-06-01T00:00:00Z", text)
		}
		v.Set(reflect.ValueOf(t.UTC()))
		return nil
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	return setBasic(v, text)
}

var errOutOfRange = errors.New("out of range")

func setBasic(v reflect.Value, text string) error {
	switch {
	case v.Kind() == reflect.String:
		v.SetString(text)
		return nil
	case v.Kind() == reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(text == "true")
		return nil
	case v.CanInt():
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(n)
		return numberError("whole number", text, err)
	case v.CanUint():
		n, err := strconv.ParseUint(text, 10, v.Type().Bits())
		v.SetUint(n)
		return numberError("whole number from 0 on", text, err)
	case v.CanFloat():
		f, err := strconv.ParseFloat(text, v.Type().Bits())
		if math.IsInf(f, 0) || math.IsNaN(f) {
			err = errOutOfRange
		}
		v.SetFloat(f)
		return numberError("number", text, err)
	}
	panic("yamlfile: no text can be stored in a " + v.Type().String()) // a mistake of the program's
}

func numberError(what, text string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, strconv.ErrRange) || errors.Is(err, errOutOfRange):
		return fmt.Errorf("%s is out of range", text)
	default:
		return fmt.Errorf("%q is no %s", text, what)
	}
}
