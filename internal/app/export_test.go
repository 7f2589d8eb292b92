package app

import (
	"testing"
	"time"
)

// ProbeEvery has hubs that start during the test knock more often.
func ProbeEvery(t *testing.T, interval time.Duration) {
	before := probeInterval
	probeInterval = interval
	t.Cleanup(func() { probeInterval = before })
}
