package yamlfile

import (
	"slices"
	"strings"
)

// suggest returns a hint for a word that is none of known: the nearest one, or
// else all of them.
func suggest(word string, known []string) string {
	if hint := didYouMean(word, known); hint != "" {
		return hint
	}
	slices.Sort(known)
	return "known here: " + strings.Join(known, ", ")
}

// Suggest returns a hint for a word that is none of known: `did you mean "…"?`, or
// nothing where none is near.
func Suggest(word string, known []string) string { return didYouMean(word, known) }

// didYouMean names the known word nearest to word, or nothing where none is near.
func didYouMean(word string, known []string) string {
	best, distance := "", len(word)/3+2
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := editDistance(plain(word), plain(k)); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return `did you mean "` + best + `"?`
}

// plain drops what people mix up first: case, _ and -.
func plain(word string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(word))
}

// editDistance is the number of letters to insert, remove, replace or swap with
// a neighbour (each place once) to make b of a.
func editDistance(a, b string) int {
	const tooLong = 64 // no key of ours is; the cost grows with the square
	if len(a) > tooLong {
		return len(a)
	}
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			same := 1
			if a[i-1] == b[j-1] {
				same = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+same)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
