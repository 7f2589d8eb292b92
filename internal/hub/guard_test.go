package hub

import "testing"

func TestRemovalHeld(t *testing.T) {
	for _, test := range []struct {
		enrolled, removed, allowed int
		want                       bool
	}{
		{4, 2, 0, false}, {4, 3, 0, true}, {4, 3, 2, true}, {4, 3, 3, false}, {4, 4, 100, false},
		{30, 3, 0, false}, {29, 3, 0, true}, {1000, 100, 0, false}, {1000, 101, 0, true}, {0, 0, 0, false},
	} {
		if got := RemovalHeld(test.enrolled, test.removed, test.allowed); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}
