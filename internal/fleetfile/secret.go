package fleetfile

import (
	"bytes"
	"cmp"
	"regexp"
	"slices"
	"unicode/utf8"

	"felhom.eu/hub/internal/hub"
)

// secretKind is a text that gives itself away as a secret. Its form is looked
// for only where one of its marks stands: finding a mark is some fifty times as
// fast as running the expression.
type secretKind struct {
	what  string
	marks []string
	form  *regexp.Regexp
}

var secretKinds = []secretKind{
	{"a private key (PEM)", []string{"PRIVATE KEY"}, regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----`)},
	{"an age identity", []string{"AGE-SECRET-KEY-", "age-secret-key-"}, regexp.MustCompile(`(?i)AGE-SECRET-KEY-(PQ-)?1[A-Z0-9]{20,}`)},
	{"a GitHub token", []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"},
		regexp.MustCompile(`\b(gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{20,})`)},
	{"a GitLab token", []string{"glpat-", "gldt-", "glrt-", "glptt-", "glcbt-"}, regexp.MustCompile(`\bgl(pat|dt|rt|ptt|cbt)-[A-Za-z0-9_-]{16,}`)},
	{"a Slack token", []string{"xox", "xapp-"}, regexp.MustCompile(`\b(xox[a-z]|xapp)-[A-Za-z0-9-]{10,}`)},
	{"a Slack webhook", []string{"hooks.slack.com/"}, regexp.MustCompile(`hooks\.slack\.com/(services|workflows|triggers)/[A-Za-z0-9/]{16,}`)},
	{"a Discord webhook", []string{"/api/webhooks/"}, regexp.MustCompile(`/api/webhooks/[0-9]+/[A-Za-z0-9_-]{16,}`)},
	{"a Teams webhook", []string{"webhook.office.com/", "sig="}, regexp.MustCompile(`webhook\.office\.com/[A-Za-z0-9@/_-]{32,}|[?&]sig=[A-Za-z0-9%_-]{20,}`)},
	{"a Telegram bot's token", []string{"telegram://"}, regexp.MustCompile(`telegram://[0-9]+:[A-Za-z0-9_-]{20,}`)},
	{"a webhook's secret", []string{"whsec_"}, regexp.MustCompile(`\bwhsec_[A-Za-z0-9+/]{32,}`)},
	{"an AWS access key", []string{"AKIA", "ASIA"}, regexp.MustCompile(`\b(AKIA|ASIA)[A-Z0-9]{16}\b`)},
	{"a Stripe key", []string{"k_live_"}, regexp.MustCompile(`\b[sr]k_live_[A-Za-z0-9]{10,}`)},
	{"a Google API key", []string{"AIza"}, regexp.MustCompile(`\bAIza[A-Za-z0-9_-]{35}`)},
	{"a Proxmox API token", []string{"PVEAPIToken="}, regexp.MustCompile(`PVEAPIToken=[^\s=]+=[0-9A-Fa-f-]{36}`)},
	{"a JSON Web Token", []string{"eyJ"}, regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}`)},
	{"a bearer token", []string{"Bearer ", "bearer ", "BEARER "}, regexp.MustCompile(`(?i)\bbearer +[A-Za-z0-9._~+/-]*[0-9][A-Za-z0-9._~+/-]*`)},
}

// minBearer is how long a bearer token is, with the word before it. Shorter ones
// are words of a sentence.
const minBearer = len("bearer ") + 20

const secretHint = "take it out and replace it: whoever can read this repository knows it, its history included; " +
	"where it is none, end the line with # validate: not-a-secret"

// hit is a place in a file.
type hit struct {
	offset int
	what   string
}

// findSecrets reports the lines of a file that hold a secret in the clear, each
// once. What stands there is never part of the message.
func findSecrets(name string, data []byte) []hub.Problem {
	hits := hexKeys(data)
	for _, kind := range secretKinds {
		if !slices.ContainsFunc(kind.marks, func(mark string) bool { return bytes.Contains(data, []byte(mark)) }) {
			continue
		}
		for _, at := range kind.form.FindAllIndex(data, -1) {
			if kind.what != "a bearer token" || at[1]-at[0] >= minBearer {
				hits = append(hits, hit{at[0], kind.what})
			}
		}
	}
	slices.SortFunc(hits, func(a, b hit) int { return cmp.Compare(a.offset, b.offset) })
	var problems []hub.Problem
	last := -1 // where the line begins that was reported last
	for _, h := range hits {
		start := lineStart(data, h.offset)
		if start == last || isExcused(data, start) {
			continue
		}
		last = start
		problems = append(problems, hub.Problem{
			File: name, Line: 1 + bytes.Count(data[:start], []byte("\n")), Column: 1 + utf8.RuneCount(data[start:h.offset]),
			Rule: "secret", Message: "a secret in the clear: " + h.what, Hint: secretHint,
		})
	}
	return problems
}

const hexKeyLen = 64

// hexKeys finds texts of exactly 64 hex digits, the form of the hub's own keys
// and of many others, unless they are said to be digests.
func hexKeys(data []byte) (hits []hit) {
	// Such a text covers one of every 64 places.
	for i := hexKeyLen - 1; i < len(data); i += hexKeyLen {
		if !isHex(data[i]) {
			continue
		}
		start, end := i, i+1
		for start > 0 && isHex(data[start-1]) {
			start--
		}
		for end < len(data) && isHex(data[end]) {
			end++
		}
		alone := (start == 0 || !isAlphanumeric(data[start-1]) || bytes.HasSuffix(data[:start], []byte("0x"))) &&
			(end == len(data) || !isAlphanumeric(data[end]))
		if alone && end-start == hexKeyLen && !isDigest(data, start) {
			hits = append(hits, hit{start, "64 hex digits, as a key has"})
		}
		i += max(0, end-i-1) / hexKeyLen * hexKeyLen // a longer text is looked at once
	}
	return hits
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }

func isAlphanumeric(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' }

var (
	algorithm = regexp.MustCompile(`(?i)sha-?256(sum)?[:=/-]$`)
	anyKey    = regexp.MustCompile(`([A-Za-z0-9_.-]+)["']?\s*[:=]`)
	// telling are the words of a key that say what its value is; the last one
	// counts: keyFingerprint is a digest, digest_key a secret.
	telling = regexp.MustCompile(`(?i)(sha-?\d+|digest|checksum|cksum|sums?$|fingerprint|thumbprint|hash|integrity|etag|commit|revision)|key|secret|token|passw`)
)

// isDigest reports whether what begins at offset is introduced as a digest: by
// the algorithm before it, or by the name of its key, on its line or above it.
func isDigest(data []byte, offset int) bool {
	start := lineStart(data, offset)
	before := data[start:offset]
	if algorithm.Match(before) {
		return true
	}
	if keys := anyKey.FindAllSubmatch(before, -1); len(keys) > 0 {
		return namesDigest(keys[len(keys)-1][1])
	}
	for line := range around(data, start) {
		if key := anyKey.FindSubmatch(line); key != nil {
			return namesDigest(key[1])
		}
	}
	return false
}

func namesDigest(key []byte) bool {
	words := telling.FindAllSubmatch(key, -1)
	return len(words) > 0 && words[len(words)-1][1] != nil
}

var (
	excuse      = regexp.MustCompile(`#\s*validate:\s*not-a-secret\b`)
	blockScalar = regexp.MustCompile(`[|>][0-9+-]*\s+#`)
)

// isExcused reports whether the line that begins at start, or the key of the
// block of text that it is a part of, is said to hold no secret.
func isExcused(data []byte, start int) bool {
	if excuse.Match(lineAt(data, start)) {
		return true
	}
	for line := range around(data, start) {
		if blockScalar.Match(line) && excuse.Match(line) {
			return true
		}
	}
	return false
}

// around yields the lines that the line beginning at start stands below, by
// their indentation, from the nearest on.
func around(data []byte, start int) func(yield func(line []byte) bool) {
	return func(yield func([]byte) bool) {
		depth := depthOf(lineAt(data, start))
		for start > 0 && depth > 0 {
			start = lineStart(data, start-1)
			line := lineAt(data, start)
			if d := depthOf(line); len(bytes.TrimSpace(line)) > 0 && d < depth {
				depth = d
				if !yield(line) {
					return
				}
			}
		}
	}
}

// depthOf is how far a line is indented; an item of a list stands below the key
// whose column it shares.
func depthOf(line []byte) int {
	content := bytes.TrimLeft(line, " ")
	depth := 2 * (len(line) - len(content))
	if bytes.HasPrefix(content, []byte("- ")) {
		depth++
	}
	return depth
}

func lineStart(data []byte, offset int) int { return bytes.LastIndexByte(data[:offset], '\n') + 1 }

func lineAt(data []byte, start int) []byte {
	line, _, _ := bytes.Cut(data[start:], []byte("\n"))
	return line
}
