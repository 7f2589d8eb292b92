package gitsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	gitfile "github.com/go-git/go-git/v5/plumbing/transport/file"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// errMoved means that the branch on the remote is not where the caller
// believed: build the commit anew on its new head.
var errMoved = errors.New("the branch on the remote has moved")

// maxRemoteText bounds what is kept of a server's words to a pusher.
const maxRemoteText = 4 << 10

// remote is the repository that is mirrored.
type remote struct {
	endpoint *transport.Endpoint
	client   transport.Transport
	auth     func() (transport.AuthMethod, error)
	http     *http.Client // nil unless https

	// dialing is held while a connection is opened. Opening takes no context
	// in go-git, and an SSH server that accepts and says nothing blocks it;
	// the slot keeps that to one goroutine, not one for every poll.
	dialing chan struct{}
}

func newRemote(o Options) (*remote, error) {
	ep, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	r := &remote{endpoint: ep, dialing: make(chan struct{}, 1)}
	switch ep.Protocol {
	case "https":
		if r.http, err = o.httpClient(); err != nil {
			return nil, err
		}
		r.client, r.auth = githttp.NewClient(r.http), o.httpAuth
	case "ssh":
		r.client = gitssh.NewClient(nil)
		r.auth = func() (transport.AuthMethod, error) { return o.sshAuth(ep) }
	default:
		r.client = gitfile.DefaultClient
		r.auth = func() (transport.AuthMethod, error) { return nil, nil }
	}
	return r, nil
}

func (r *remote) close() {
	if r.http != nil {
		r.http.CloseIdleConnections()
	}
}

// connect opens a session and reads the remote's references.
func connect[S transport.Session](ctx context.Context, r *remote, open func(*transport.Endpoint, transport.AuthMethod) (S, error)) (S, *packp.AdvRefs, error) {
	var none S
	session, err := dial(ctx, r, open)
	if err != nil {
		return none, nil, r.explain(err)
	}
	refs, err := session.AdvertisedReferencesContext(ctx)
	if err != nil {
		_ = session.Close()
		return none, nil, r.explain(err)
	}
	return session, refs, nil
}

func dial[S transport.Session](ctx context.Context, r *remote, open func(*transport.Endpoint, transport.AuthMethod) (S, error)) (S, error) {
	var none S
	auth, err := r.auth()
	if err != nil {
		return none, err
	}
	select {
	case r.dialing <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("an earlier connection still hangs: %w", ctx.Err())
	}
	type result struct {
		session S
		err     error
	}
	opened := make(chan result)
	endpoint := *r.endpoint // a session may change it
	go func() {
		defer func() { <-r.dialing }()
		session, err := open(&endpoint, auth)
		select {
		case opened <- result{session, err}:
		case <-ctx.Done():
			if err == nil {
				_ = session.Close()
			}
		}
	}()
	select {
	case res := <-opened:
		return res.session, res.err
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// upload is a session that reads: the references, and then one pack.
type upload struct {
	transport.UploadPackSession
	refs *packp.AdvRefs
}

func (r *remote) upload(ctx context.Context) (*upload, error) {
	session, refs, err := connect(ctx, r, r.client.NewUploadPackSession)
	if err != nil {
		return nil, err
	}
	return &upload{session, refs}, nil
}

// head returns where the branch is, or an error that lists the branches there are.
func (u *upload) head(branch plumbing.ReferenceName) (plumbing.Hash, error) {
	if h, ok := u.refs.References[branch.String()]; ok {
		return h, nil
	}
	var names []string
	for name := range u.refs.References {
		if short, ok := strings.CutPrefix(name, "refs/heads/"); ok {
			names = append(names, short)
		}
	}
	slices.Sort(names)
	return plumbing.ZeroHash, fmt.Errorf("the remote has no branch %s (it has: %s): set fleet.branch, or push the branch",
		branch.Short(), strings.Join(names[:min(len(names), 10)], ", "))
}

// fetch has keep store a pack of what want needs beside all that haves need.
func (u *upload) fetch(ctx context.Context, want plumbing.Hash, haves []plumbing.Hash, keep func(pack io.Reader) error) error {
	// On a bad pack the server still writes, and closing waits for it: the
	// context is ended first, which kills what runs.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req := packp.NewUploadPackRequestFromCapabilities(u.refs.Capabilities)
	if u.refs.Capabilities.Supports(capability.NoProgress) {
		_ = req.Capabilities.Set(capability.NoProgress)
	}
	req.Wants, req.Haves = []plumbing.Hash{want}, haves
	resp, err := u.UploadPack(ctx, req)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	var pack io.Reader = resp
	if kind, ok := sidebandOf(req.Capabilities); ok {
		pack = sideband.NewDemuxer(kind, resp)
	}
	if err := keep(pack); err != nil {
		cancel()
		_, _ = io.Copy(io.Discard, resp)
		_ = resp.Close()
		return fmt.Errorf("fetch: %w", err)
	}
	return resp.Close()
}

func sidebandOf(caps *capability.List) (sideband.Type, bool) {
	switch {
	case caps.Supports(capability.Sideband64k):
		return sideband.Sideband64k, true
	case caps.Supports(capability.Sideband):
		return sideband.Sideband, true
	}
	return 0, false
}

// push moves one reference from cmd.Old (zero: it must not exist) to cmd.New,
// whose missing objects are in pack. It returns errMoved when the reference is
// elsewhere; any other error leaves open what the server did.
func (r *remote) push(ctx context.Context, cmd packp.Command, pack []byte) error {
	session, refs, err := connect(ctx, r, r.client.NewReceivePackSession)
	if err != nil {
		return err
	}
	defer session.Close()
	switch refs.References[cmd.Name.String()] {
	case cmd.New:
		return nil
	case cmd.Old:
	default:
		return errMoved
	}
	req := packp.NewReferenceUpdateRequestFromCapabilities(refs.Capabilities)
	req.Commands = []*packp.Command{&cmd}
	req.Packfile = io.NopCloser(bytes.NewReader(pack))
	said := &limitedText{}
	for _, c := range []capability.Capability{capability.Sideband64k, capability.Sideband} {
		if refs.Capabilities.Supports(c) {
			_ = req.Capabilities.Set(c)
			req.Progress = said
			break
		}
	}
	if _, err := session.ReceivePack(ctx, req); err != nil {
		if text := said.String(); text != "" {
			return fmt.Errorf("%w; the server said: %s", r.explain(err), text)
		}
		return r.explain(err)
	}
	return nil
}

// limitedText keeps the beginning of what a server says.
type limitedText struct{ kept []byte }

func (l *limitedText) Write(p []byte) (int, error) {
	l.kept = append(l.kept, p[:min(len(p), maxRemoteText-len(l.kept))]...)
	return len(p), nil
}

func (l *limitedText) String() string { return oneLine(string(l.kept)) }

// oneLine returns text on one line, without control characters.
func oneLine(text string) string {
	clean := strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, text)
	return strings.Join(strings.Fields(clean), " ")
}

// explain adds to a transport's error what an operator can do about it.
func (r *remote) explain(err error) error {
	var hostKey *knownhosts.KeyError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		return fmt.Errorf("%w: commit a fleet folder (hub fleet init) and push it", err)
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return fmt.Errorf("%w at %s: check fleet.url, and that fleet.credentials_file may read it", err, r.endpoint)
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		return fmt.Errorf("%s refuses the credentials: put a token with access to the repository into fleet.credentials_file: %w", r.endpoint.Host, err)
	case errors.As(err, &hostKey) && len(hostKey.Want) == 0:
		return fmt.Errorf("the SSH host key of %s is unknown: check its fingerprint and add it (ssh-keyscan %[1]s) to fleet.known_hosts_file: %w", r.endpoint.Host, err)
	case errors.As(err, &hostKey):
		return fmt.Errorf("the SSH host key of %s is not the known one: an attack, or the server changed; ask its owner before fleet.known_hosts_file is changed: %w", r.endpoint.Host, err)
	}
	return fmt.Errorf("%s: %w", r.endpoint, err)
}
