package wire

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

// judged is what scan and the library say of a text.
type judged struct {
	valid   bool
	deepest int
	members []string // name and value by turns
}

func byScan(text string) (j judged) {
	j.deepest, j.valid = scan(text, func(name, value string) { j.members = append(j.members, name, value) })
	if !j.valid {
		return judged{}
	}
	if j.deepest > maxDepth {
		j.members = nil // how many came before is not told
	}
	return j
}

func byLibrary(text string) (j judged) {
	if !jsontext.Value(text).IsValid(jsontext.AllowDuplicateNames(true)) {
		return judged{}
	}
	j.valid = true
	tokens := jsontext.NewDecoder(strings.NewReader(text), jsontext.AllowDuplicateNames(true))
	for {
		if _, err := tokens.ReadToken(); err != nil {
			break
		}
		j.deepest = max(j.deepest, tokens.StackDepth())
	}
	values := jsontext.NewDecoder(strings.NewReader(text), jsontext.AllowDuplicateNames(true))
	if first, err := values.ReadToken(); err == nil && first.Kind() == '{' && j.deepest <= maxDepth {
		for values.PeekKind() != '}' {
			name, _ := values.ReadValue()
			j.members = append(j.members, string(name))
			value, _ := values.ReadValue()
			j.members = append(j.members, string(value))
		}
	}
	return j
}

func checkScan(t *testing.T, text string) (valid bool) {
	t.Helper()
	ours, theirs := byScan(text), byLibrary(text)
	if ours.valid != theirs.valid || ours.deepest != theirs.deepest || !slices.Equal(ours.members, theirs.members) {
		t.Errorf("%.200q: %+v, by the library %+v", text, ours, theirs)
	}
	return ours.valid
}

var texts = []string{
	``, ` `, `{`, `[`, `"`, `}`, `{}`, `[]`, ` [ ] `, "\t{\r\n}", `{]`, `[}`, `{}{}`, `1 2`, `[1,]`, `[,1]`, `[1 2]`, `[[],{}]`, `[[]`, `[]]`,
	`{"a"}`, `{"a":}`, `{"a":1,}`, `{,"a":1}`, `{"a":1 "b":2}`, `{"a" :1 , "a": [2]}`, `{a:1}`, `{1:1}`, `{"a":{"b":{}},"c":[{}]}`, `["a":1]`, `{"a",1}`,
	`0`, `-0`, `00`, `01`, `-`, `-a`, `+1`, `.5`, `1.`, `1.5`, `1.e1`, `1e`, `1E+`, `1e-7`, `1e+7x`, `1.25E99`, `-12.5e0`, `0x1`, `NaN`, `Infinity`, `[-]`, `[1e]`, `1-`, `2..3`,
	`true`, `tru`, `truex`, `falsee`, `nul`, `null`, `nil`, `[true,false,null]`, `TRUE`,
	`"a`, `"a\`, `"\"`, `"\\"`, `"\/\b\f\n\r\t\""`, `"\x"`, `"\'"`, `"\u"`, `"\u12"`, `"\u123"`, `"\u12G4"`, `"\u00e9"`, `"\uABCD"`, `"\uabcg"`, `"\U0041"`,
	`"\ud800"`, `"\udc00"`, `"\ud800\udc00"`, `"\uD83D\uDE00"`, `"\ud800x"`, `"\ud800\n"`, `"\ud800\ud800"`, `"\ud800\u0041"`, `"\ud800\u`, `"\ud800\udc0"`, `"\ufffd"`, `"\ufffe"`,
	"\"\x7f\"", "\"\x00\"", "\"\x1f\"", "\"\t\"", "\"é€😀\"", "\"\xff\"", "\"\xc3\"", "\"\xc3", "\"\xe2\x82\"", "\"\xed\xa0\x80\"", "\"\xc0\xaf\"", "\"\xf4\x90\x80\x80\"", "\"\ufffd\"",
	"\ufeff{}", "\x00{}", "{}\x00", "{\x0b}", "[1\x0c]", "\u00a0{}", "{\"\xff\":1}", `{"\ud800":1}`,
	strings.Repeat("[", 64) + strings.Repeat("]", 64), strings.Repeat("[", 65) + strings.Repeat("]", 65),
	strings.Repeat(`{"a":`, 64) + "1" + strings.Repeat("}", 64), `{"a":1,"b":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `,"c":2}`,
	strings.Repeat("[", maxNesting) + strings.Repeat("]", maxNesting), strings.Repeat("[", maxNesting+1) + strings.Repeat("]", maxNesting+1),
	strings.Repeat(`{"":`, maxNesting) + "0" + strings.Repeat("}", maxNesting), strings.Repeat(`{"":`, maxNesting+1) + "0" + strings.Repeat("}", maxNesting+1),
}

// TestScanAgreesWithTheLibrary: on each text, on what it is as an element, a name
// and a member, and on mutants, scan says what the library says.
func TestScanAgreesWithTheLibrary(t *testing.T) {
	seeds := append(slices.Clone(texts), string(golden(t, "host-report.golden.json")), string(golden(t, "host-report.full.json")), string(twelveGuests()))
	for _, c := range refusedReports {
		seeds = append(seeds, c.body)
	}
	random := rand.New(rand.NewPCG(8, 64))
	mutants, valid := 0, 0
	for _, seed := range seeds {
		for _, text := range []string{seed, "[" + seed + "]", "[0," + seed + " ]", `{"x":` + seed + `}`, "{" + seed + ":1}", `{"x":{"y":` + seed + `,"z":1}}`} {
			checkScan(t, text)
		}
		if len(seed) > 8<<10 {
			continue // its mutants are too slow
		}
		for range 300 {
			mutants++
			if checkScan(t, string(mutate(random, []byte(seed)))) {
				valid++
			}
		}
	}
	if valid < mutants/20 {
		t.Errorf("only %d of %d mutants are valid: they are too wild to tell anything", valid, mutants)
	}
	// Every byte, in a string, behind a value, as a value and in an escape.
	for c := range 256 {
		for _, around := range [][2]string{{`"`, `"`}, {`1`, ``}, {``, ``}, {`[0`, `1]`}, {`"\`, `"`}, {`"\u00`, `0"`}, {`"\ud83d\ud`, `00"`}, {"\"\xc3", `"`}, {`{"a"`, `1}`}} {
			checkScan(t, around[0]+string([]byte{byte(c)})+around[1])
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Add(golden(f, "host-report.full.json"))
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		checkScan(t, string(text))
		_, _ = CheckReport(text)
		if !bytes.Equal(text, before) {
			t.Fatal("CheckReport wrote to the body")
		}
	})
}

func BenchmarkScan(b *testing.B) {
	text := jsontext.Value(twelveGuests())
	if err := text.Compact(); err != nil {
		b.Fatal(err)
	}
	b.Run("ours", func(b *testing.B) {
		text := string(text)
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			scan(text, func(string, string) {})
		}
	})
	b.Run("library", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			text.IsValid(jsontext.AllowDuplicateNames(true))
		}
	})
}
