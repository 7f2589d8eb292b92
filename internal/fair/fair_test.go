package fair

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

func TestNobodyHoldsMoreThanIsLeft(t *testing.T) {
	s := New(120)
	hold := func(who string) (n int64) {
		for s.Take(who, 1) {
			n++
		}
		return n
	}
	if n := hold("greedy"); n != 60 {
		t.Errorf("one alone holds %d of 120", n)
	}
	if n := hold("second"); n != 30 {
		t.Errorf("a second holds %d", n)
	}
	if !s.Take("modest", 5) {
		t.Error("there is no room for a modest one")
	}
	s.Give("greedy", 60)
	s.Give("second", 30)
	s.Give("modest", 5)
	if s.Used() != 0 || len(s.held) != 0 {
		t.Errorf("%d used, held by %v", s.Used(), s.held)
	}
	if s.Take("large", 61) || !s.Take("large", 60) {
		t.Error("half is the most")
	}
}

// waiting waits until n are in the line of who.
func waiting(t *testing.T, s *Shares, who string, n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		there := len(s.lines[who])
		s.mu.Unlock()
		if there == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d wait, not %d", there, n)
		}
	}
}

func TestThoseWhoWaitAreServedInTurn(t *testing.T) {
	s := New(2)
	if !s.Take("a", 1) {
		t.Fatal("no room at first")
	}
	order := make(chan string, 4)
	var all sync.WaitGroup
	wait := func(who string, n int) {
		all.Go(func() {
			if err := s.Wait(t.Context(), who); err != nil {
				t.Error(err)
			}
			order <- who
			s.Give(who, 1)
		})
		waiting(t, s, who, n)
	}
	wait("a", 1)
	wait("a", 2)
	wait("a", 3)
	wait("b", 1)
	s.Give("a", 1)
	all.Wait()
	if got := <-order + <-order + <-order + <-order; got != "abaa" {
		t.Errorf("served in the order %s", got)
	}
}

func TestWhoGivesUpLeavesNothing(t *testing.T) {
	s := New(2)
	if !s.Take("a", 1) {
		t.Fatal("no room at first")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Wait(ctx, "b") }()
	waiting(t, s, "b", 1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	s.Give("a", 1)
	if s.Used() != 0 || len(s.lines) != 0 || len(s.turn) != 0 {
		t.Errorf("left: %d used, %v, %v", s.Used(), s.lines, s.turn)
	}
}

func TestNothingIsLostUnderLoad(t *testing.T) {
	s := New(8)
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for range 200 {
				who := string(rune('a' + rand.IntN(4)))
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(300))*time.Microsecond)
				if s.Wait(ctx, who) == nil {
					if s.Used() > 8 {
						t.Error("more is used than there is")
					}
					s.Give(who, 1)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if s.Used() != 0 || len(s.held) != 0 || len(s.lines) != 0 || len(s.turn) != 0 {
		t.Errorf("left: %d used, %v, %v, %v", s.Used(), s.held, s.lines, s.turn)
	}
}
