package app

import (
	"testing"
	"time"
)

func TestOutage(t *testing.T) {
	var o outage
	start := time.Date(2026, 6, 8, 9, 0, 0, 0, time.UTC)
	for _, step := range []struct {
		at       time.Duration
		refusing bool
		want     bool
	}{
		{0, false, false},
		{1 * time.Second, true, false},
		{10 * time.Second, false, false}, // too short
		{20 * time.Second, true, false},
		{40 * time.Second, true, false},
		{50 * time.Second, false, true},
		{51 * time.Second, false, false}, // it ends once
	} {
		if got := o.ended(step.refusing, start.Add(step.at)); got != step.want {
			t.Errorf("at %s: %v, want %v", step.at, got, step.want)
		}
	}
}
