package proof

import (
	"flag"
	"os"
	"testing"
)

// TestMain has as many traces drawn as fit into make check or make test, always
// the same ones, unless the command line says how many: then they are new ones, as
// in make prove.
func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("rapid.nofailfile", "true")
	if !set("rapid.checks") {
		checks := "2500"
		if testing.Short() {
			checks = "250"
		}
		_ = flag.Set("rapid.checks", checks)
		if !set("rapid.seed") {
			_ = flag.Set("rapid.seed", "1")
		}
	}
	os.Exit(m.Run())
}

func set(name string) (there bool) {
	flag.Visit(func(f *flag.Flag) { there = there || f.Name == name })
	return there
}
