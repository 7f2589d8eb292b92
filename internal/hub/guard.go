package hub

// The guard against mass removal.
const (
	minHeldRemoval   = 3
	heldRemovalShare = 10 // per cent
)

// RemovalHeld reports whether a commit must wait for an operator's word: it
// removes more than 10 % of the hosts in force, and at least 3, and its
// guards.allowRemoval is less than that. Enrolled are the active and paused
// hosts in force; removed are those of them that the commit retires or no longer
// names.
func RemovalHeld(enrolled, removed, allowed int) bool {
	return removed >= minHeldRemoval && removed*100 > enrolled*heldRemovalShare && removed > allowed
}
