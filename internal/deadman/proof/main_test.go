package proof

import (
	"flag"
	"os"
	"testing"
)

// TestMain has as many traces drawn as fit into make check or make test, unless
// the command line says how many.
func TestMain(m *testing.M) {
	flag.Parse()
	checks := "2500"
	if testing.Short() {
		checks = "250"
	}
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.nofailfile": "true"} {
		if !set(name) {
			_ = flag.Set(name, value)
		}
	}
	os.Exit(m.Run())
}

func set(name string) (there bool) {
	flag.Visit(func(f *flag.Flag) { there = there || f.Name == name })
	return there
}
