package gitsync

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// FuzzSigners: whatever the files hold, either every line is a rule or none is.
func FuzzSigners(f *testing.F) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	for _, seed := range []string{
		key, "olga " + key, `"a b",c namespaces="git,!file",valid-after="20260101Z" ` + key + " note\r\n# x\n",
		"olga cert-authority " + key, "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU x", pgpBegin + "\n\nxsBN\n" + pgpEnd,
		"F2E0 1A2B 3C4D 5E6F 7081 92A3 B4C5 D6E7 F809 1A2B", krlMagic, `a namespaces="*****************************x" ` + key,
	} {
		f.Add(seed, seed)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, allowed, revoked string) {
		paths := []string{filepath.Join(dir, "allowed"), filepath.Join(dir, "revoked")}
		for i, text := range []string{allowed, revoked} {
			if err := os.WriteFile(paths[i], []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := ReadSigners(paths[0], paths[1])
		if err != nil {
			if s != nil {
				t.Error("signers beside an error")
			}
			return
		}
		rules := len(s.pgp)
		for fingerprint, lines := range s.ssh {
			rules += len(lines)
			for _, line := range lines {
				if line.name == "" || ssh.FingerprintSHA256(line.key) != fingerprint {
					t.Errorf("a rule %+v", line)
				}
			}
		}
		if lines := strings.Count(strings.TrimSpace(allowed), "\n") + 1; rules == 0 || len(s.pgp) == 0 && rules > lines {
			t.Errorf("%d rules of %d lines", rules, lines)
		}
	})
}

// FuzzSplitCommit: the payload is the commit without its signature headers, and
// nothing else.
func FuzzSplitCommit(f *testing.F) {
	const tree, by = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n", "author A <a> 1 +0000\ncommitter A <a> 1 +0000\n"
	for _, seed := range []string{
		tree + by + "\nm\n", tree + by + "gpgsig -----BEGIN SSH SIGNATURE-----\n AAAA\n -----END SSH SIGNATURE-----\n\nm",
		tree + "parent 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n" + by + "encoding x\ngpgsig a\n \n b\n\n\n\n", tree + by + "gpgsig a\ngpgsig b\n\n",
		tree + by + "gpgsig-sha256 a\n b\nmergetag object\n gpgsig x\n\n", "", "\n\n", " x\n\n", tree + by,
	} {
		f.Add([]byte(seed))
	}
	nobody := &Signers{}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := splitCommit(raw)
		if err != nil {
			return
		}
		var want []byte
		head, message, _ := bytes.Cut(raw, []byte("\n\n"))
		dropping := false
		for _, line := range bytes.SplitAfter(append(head, '\n'), []byte("\n")) {
			if !bytes.HasPrefix(line, []byte(" ")) {
				dropping = bytes.HasPrefix(line, []byte("gpgsig ")) || bytes.HasPrefix(line, []byte("gpgsig-sha256 "))
			}
			if !dropping {
				want = append(want, line...)
			}
		}
		want = append(append(want, '\n'), message...)
		if !bytes.Equal(c.payload, want) {
			t.Errorf("payload %q, want %q", c.payload, want)
		}
		if _, err := nobody.check(c, time.Unix(0, 0)); err == nil {
			t.Error("trusted without a signer")
		}
	})
}
