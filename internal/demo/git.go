package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// author signs the demo's own commits.
const (
	authorName  = "Felhom demo"
	authorEmail = "demo@localhost"
)

var errNoGit = errors.New("the demo needs git, and there is none in PATH: install it, as with apt-get install git")

// git runs git in dir and returns what it prints. Nobody's configuration, hooks
// or signing keys have a part in it.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	environ := slices.DeleteFunc(os.Environ(), func(e string) bool {
		return strings.HasPrefix(e, "GIT_") // as GIT_DIR, which a hook would hand on
	})
	return runGit(ctx, dir, append(environ,
		"HOME="+os.DevNull, "XDG_CONFIG_HOME="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C",
		"GIT_AUTHOR_NAME="+authorName, "GIT_AUTHOR_EMAIL="+authorEmail,
		"GIT_COMMITTER_NAME="+authorName, "GIT_COMMITTER_EMAIL="+authorEmail,
	), args...)
}

func runGit(ctx context.Context, dir string, environ []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Env = dir, environ
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		err = errNoGit
	case err != nil:
		err = fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(string(out)), err
}

// newRepository makes an empty repository whose branch is main, also with a git
// that has no init -b.
func newRepository(ctx context.Context, dir string, options ...string) error {
	if _, err := git(ctx, "", append(append([]string{"init", "-q"}, options...), dir)...); err != nil {
		return err
	}
	_, err := git(ctx, dir, "symbolic-ref", "HEAD", "refs/heads/main")
	return err
}

// commit commits everything in the clone.
func commit(ctx context.Context, clone, message string) error {
	_, err := git(ctx, clone, "add", "-A")
	if err == nil {
		_, err = git(ctx, clone, "commit", "-q", "-m", message)
	}
	return err
}

// letUserCommit gives the clone an author where its user has none, so that the
// first git commit of a newcomer is not refused.
func letUserCommit(ctx context.Context, clone string) error {
	if email, err := runGit(ctx, clone, os.Environ(), "config", "user.email"); err == nil && email != "" {
		return nil
	}
	for name, value := range map[string]string{"user.name": authorName, "user.email": authorEmail} {
		if _, err := git(ctx, clone, "config", name, value); err != nil {
			return err
		}
	}
	return nil
}
