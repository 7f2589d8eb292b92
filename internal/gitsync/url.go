package gitsync

import (
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"
)

// CheckURL says whether text is an address that Open takes: a path, file://,
// https://, ssh:// or user@host:path, without a password or a token in it. The
// error names what to write instead, and repeats no credential.
func CheckURL(text string) error {
	_, err := parseURL(text)
	return err
}

func parseURL(text string) (*transport.Endpoint, error) {
	scheme, rest, isURL := strings.Cut(text, "://")
	switch {
	case text == "":
		return nil, errors.New("the fleet's repository is not named: set fleet.url to a path, https://… or ssh://…")
	case !isURL && isSCP(text):
		return transport.NewEndpoint(text)
	case !isURL:
		return fileEndpoint(text)
	case strings.EqualFold(scheme, "file"):
		host, path, found := strings.Cut(rest, "/")
		if !found || host != "" && host != "localhost" {
			return nil, fmt.Errorf("fleet.url: write file:///path/to/repository (three slashes) instead of %s", text)
		}
		return fileEndpoint("/" + path)
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("fleet.url cannot be read as a URL: write https://host/path.git or ssh://git@host/path.git")
	}
	return checkRemoteURL(u)
}

func checkRemoteURL(u *url.URL) (*transport.Endpoint, error) {
	clean := *u
	clean.RawQuery, clean.Fragment = "", ""
	password := false
	if u.User != nil {
		_, password = u.User.Password()
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "ssh":
		clean.Scheme, clean.User, clean.Host = "https", nil, u.Hostname()
		return nil, fmt.Errorf("fleet.url: %s:// is not taken, it neither encrypts nor proves the server: write %s, or ssh://git@…",
			u.Scheme, &clean)
	case u.Scheme == "https" && u.User != nil:
		clean.User = nil
		return nil, fmt.Errorf("fleet.url must carry no credentials: write %s and put the token into the file named by fleet.credentials_file", &clean)
	case password:
		clean.User = url.User(u.User.Username())
		return nil, fmt.Errorf("fleet.url must carry no credentials: write %s and name a private key in fleet.credentials_file", &clean)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("fleet.url must have no query and no fragment: write %s", &clean)
	}
	return transport.NewEndpoint(u.String())
}

// isSCP recognises host:path and user@host:path as git does: a colon before the
// first slash.
func isSCP(text string) bool {
	colon, slash := strings.IndexByte(text, ':'), strings.IndexByte(text, '/')
	return colon > 0 && (slash < 0 || colon < slash)
}

func fileEndpoint(path string) (*transport.Endpoint, error) {
	if _, err := exec.LookPath("git"); err != nil {
		return nil, fmt.Errorf("fleet.url is a folder, and reading one needs the program git: install git, or use https:// or ssh:// (%w)", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	return &transport.Endpoint{Protocol: "file", Path: abs}, nil
}
