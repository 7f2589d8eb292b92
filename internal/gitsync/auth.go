package gitsync

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
)

const (
	sshDialTimeout = 20 * time.Second
	maxCredentials = 64 << 10

	// tokenUser is sent with a token that names no user. GitHub's app tokens
	// demand this one; the others take any.
	tokenUser = "x-access-token"
)

// credentials reads the file anew for each connection, so that a token or key
// can be replaced while the hub runs. The caller says which of the two it wants.
func (o Options) credentials() ([]byte, error) {
	return readPrivate("fleet.credentials_file", o.CredentialsFile)
}

// httpAuth reads a token, or user:token, for basic authentication.
func (o Options) httpAuth() (transport.AuthMethod, error) {
	if o.CredentialsFile == "" {
		return nil, nil
	}
	data, err := o.credentials()
	if err != nil {
		return nil, err
	}
	token := strings.TrimSpace(string(data))
	if token == "" || strings.ContainsAny(token, "\r\n") {
		return nil, fmt.Errorf("fleet.credentials_file: %s must hold one line, the token or user:token, for an https:// address", o.CredentialsFile)
	}
	if user, password, found := strings.Cut(token, ":"); found {
		return &githttp.BasicAuth{Username: user, Password: password}, nil
	}
	return &githttp.BasicAuth{Username: tokenUser, Password: token}, nil
}

// httpClient makes a client that trusts CAFile beside the system's authorities
// and follows no redirect to another host.
func (o Options) httpClient() (*http.Client, error) {
	rt := http.DefaultTransport.(*http.Transport).Clone()
	if o.CAFile != "" {
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("fleet.ca_file: %w", err)
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("fleet.ca_file: %s holds no PEM certificate", o.CAFile)
		}
		rt.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &http.Client{Transport: rt, CheckRedirect: sameHost}, nil
}

func sameHost(req *http.Request, via []*http.Request) error {
	if from := via[0].URL; !strings.EqualFold(from.Host, req.URL.Host) {
		return fmt.Errorf("%s redirects to another host, %s: if that is right, write it in fleet.url", from.Host, req.URL.Host)
	}
	return nil
}

// sshAuth is a private key and the host keys that are trusted. go-git's own
// method sets no timeout.
type sshAuth struct{ config *ssh.ClientConfig }

func (sshAuth) Name() string                               { return gitssh.PublicKeysName }
func (a sshAuth) String() string                           { return a.Name() + " of " + a.config.User }
func (a sshAuth) ClientConfig() (*ssh.ClientConfig, error) { c := *a.config; return &c, nil }

func (o Options) sshAuth(ep *transport.Endpoint) (transport.AuthMethod, error) {
	if o.CredentialsFile == "" {
		return nil, errors.New("an ssh:// address needs a private key: name its file in fleet.credentials_file")
	}
	data, err := o.credentials()
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(data)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		return nil, fmt.Errorf("fleet.credentials_file: the key in %s has a passphrase, nobody is there to type it: make a deploy key without one (ssh-keygen -t ed25519 -N '')", o.CredentialsFile)
	}
	if err != nil {
		return nil, fmt.Errorf("fleet.credentials_file: %s holds no private SSH key, which an ssh:// address needs: %w", o.CredentialsFile, err)
	}
	var files []string // none: go-git's default, ~/.ssh/known_hosts and the system's
	if o.KnownHostsFile != "" {
		files = []string{o.KnownHostsFile}
	}
	known, err := gitssh.NewKnownHostsDb(files...)
	if err != nil {
		return nil, fmt.Errorf("the server's SSH host key cannot be checked: set fleet.known_hosts_file (now %q) to a file that names it (ssh-keyscan %s): %w",
			o.KnownHostsFile, ep.Host, err)
	}
	port := ep.Port
	if port == 0 {
		port = gitssh.DefaultPort
	}
	user := ep.User
	if user == "" {
		user = gitssh.DefaultUsername
	}
	return sshAuth{&ssh.ClientConfig{
		User:              user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   known.HostKeyCallback(),
		HostKeyAlgorithms: known.HostKeyAlgorithms(net.JoinHostPort(ep.Host, strconv.Itoa(port))),
		Timeout:           sshDialTimeout,
	}}, nil
}
