package spool

import (
	"context"
	"fmt"
	"testing"

	"felhom.eu/hub/internal/hub"
)

func TestAppendReadAdvanceRestart(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := s.Append(context.Background(), Record{Kind: hub.KindHostReport, HostID: "h", Body: []byte(fmt.Sprint(i))}); err != nil {
			t.Fatal(err)
		}
	}
	r := s.Reader(s.Cursor())
	var cur Cursor
	for i := range 10 {
		e, ok, err := r.Next()
		if err != nil || !ok || string(e.Body) != fmt.Sprint(i) || e.Seq != uint64(i+1) {
			t.Fatal(e, ok, err)
		}
		if i == 4 {
			cur = e.End
		}
	}
	if _, ok, _ := r.Next(); ok {
		t.Fatal("more")
	}
	if err := s.Advance(cur); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", s.Stats())
	r.Close()
	s.Close()
	s, err = Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	t.Logf("%+v", s.Stats())
	r = s.Reader(s.Cursor())
	e, ok, err := r.Next()
	if err != nil || !ok || e.Seq != 6 {
		t.Fatal(e, ok, err)
	}
}
