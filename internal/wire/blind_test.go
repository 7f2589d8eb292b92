package wire

import (
	"strings"
	"testing"
	"time"

	"felhom.eu/hub/internal/blind"
)

func TestBlindTime(t *testing.T) {
	want := blind.Interval{From: received, To: received.Add(time.Millisecond), Cause: blind.Suspended}
	body, err := EncodeBlind(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeBlind(body); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, c := range [][2]string{
		{`"v":1`, `"v":2`}, {`"v":1`, `"v":1,"extra":0`}, {`"cause":"suspended"`, `"cause":"luck"`}, {`"to":`, `"to":-`},
	} {
		broken := strings.Replace(string(body), c[0], c[1], 1)
		if broken == string(body) {
			t.Fatalf("%s is not in %s", c[0], body)
		}
		if _, err := DecodeBlind([]byte(broken)); err == nil {
			t.Errorf("%s instead of %s was accepted", c[1], c[0])
		}
	}
	if _, err := EncodeBlind(blind.Interval{From: received, To: received, Cause: blind.Suspended}); err == nil {
		t.Error("an interval without length was encoded")
	}
}
