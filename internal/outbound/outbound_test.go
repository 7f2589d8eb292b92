package outbound

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCheck(t *testing.T) {
	guard := New(prefixes("10.20.0.0/16", "fd00:1::/32"))
	for _, c := range []struct {
		addr string
		ok   bool
	}{
		{"93.184.215.14", true}, {"1.1.1.1", true}, {"8.8.8.8", true}, {"172.15.255.255", true}, {"172.32.0.1", true},
		{"100.63.255.255", true}, {"100.128.0.1", true}, {"198.17.0.1", true}, {"198.20.0.1", true}, {"223.255.255.255", true},
		{"2606:2800:21f:cb07:6820:80da:af6b:8b2c", true}, {"2a00:1450:4001:82b::200e", true}, {"2003::1", true},

		{"127.0.0.1", false}, {"127.255.255.254", false}, {"0.0.0.0", false}, {"0.1.2.3", false},
		{"10.0.0.1", false}, {"172.16.0.1", false}, {"172.31.255.255", false}, {"192.168.1.1", false},
		{"169.254.169.254", false}, {"100.64.0.1", false}, {"100.127.255.255", false},
		{"192.0.0.1", false}, {"192.0.2.1", false}, {"198.51.100.1", false}, {"203.0.113.1", false},
		{"198.18.0.1", false}, {"198.19.255.255", false}, {"192.88.99.1", false},
		{"224.0.0.1", false}, {"239.255.255.255", false}, {"240.0.0.1", false}, {"255.255.255.255", false},
		{"::", false}, {"::1", false}, {"::127.0.0.1", false}, {"::93.184.215.14", false},
		{"::ffff:127.0.0.1", false}, {"::ffff:10.0.0.1", false}, {"::ffff:169.254.169.254", false}, {"::ffff:93.184.215.14", true},
		{"::ffff:0:10.0.0.1", false}, {"64:ff9b::10.0.0.1", false}, {"64:ff9b::8.8.8.8", false}, {"64:ff9b:1::1", false},
		{"2002:0a00:0001::1", false}, {"2002:7f00:1::", false}, {"2001::1", false}, {"2001:0:5ef5:79fd::1", false}, {"2001:20::1", false},
		{"2001:db8::1", false}, {"3fff::1", false}, {"100::1", false}, {"fc00::1", false}, {"fd12:3456::1", false},
		{"fe80::1", false}, {"fe80::1%eth0", false}, {"fec0::1", false}, {"ff02::1", false}, {"ff0e::1", false},

		{"10.20.3.4", true}, {"::ffff:10.20.3.4", true}, {"10.21.0.1", false}, {"fd00:1::5", true}, {"fd00:2::5", false},
	} {
		if err := guard.Check(netip.MustParseAddr(c.addr)); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrForbidden) {
			t.Errorf("Check(%s) = %v, want it allowed: %v", c.addr, err, c.ok)
		}
	}
	if guard.Check(netip.Addr{}) == nil {
		t.Error("no address at all is allowed")
	}
}

// listen serves "hello" on an address of loopback and counts connections.
func listen(t *testing.T, address string) (port string, connections *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	connections = &atomic.Int64{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	server.Listener.Close()
	server.Listener = listener
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	return port, connections
}

func get(t *testing.T, client *http.Client, url string) error {
	t.Helper()
	t.Cleanup(client.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	return err
}

func TestClientConnectsToNothingInside(t *testing.T) {
	port, connections := listen(t, "127.0.0.1:0")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:"+port)
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:"+port)
	client := New(nil).Client(nil)
	for _, url := range []string{
		"http://127.0.0.1:" + port, "https://127.0.0.1:" + port, "http://localhost:" + port, "http://[::ffff:127.0.0.1]:" + port,
		"http://[::1]:" + port, "http://0.0.0.0:" + port,
	} {
		if err := get(t, client, url); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections reached the server", n)
	}
	if err := get(t, New(prefixes("127.0.0.0/8")).Client(nil), "http://127.0.0.1:"+port); err != nil || connections.Load() != 1 {
		t.Errorf("an allowed address: %v, %d connections", err, connections.Load())
	}
}

// TestPlainHTTPOnlyWhereAllowed: a public address is not enough for a request that
// anybody on the way can read.
func TestPlainHTTPOnlyWhereAllowed(t *testing.T) {
	if _, err := New(nil).DialPlain(t.Context(), "tcp", "93.184.215.14:80"); !errors.Is(err, ErrForbidden) {
		t.Errorf("without TLS to a public address: %v", err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	target, connections := listen(t, "127.0.0.1:0")
	server := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:"+target+"/", http.StatusFound))
	defer server.Close()
	client := New(prefixes("127.0.0.0/8")).Client(nil)
	defer client.CloseIdleConnections()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusFound || connections.Load() != 0 {
		t.Errorf("status %d, %d connections to the target", res.StatusCode, connections.Load())
	}
}

// TestRebinding: a name that resolves to an allowed address when it is first asked
// for and to another one later is checked each time, on what is dialed.
func TestRebinding(t *testing.T) {
	port, allowed := listen(t, "127.0.0.1:0")
	inside, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Skipf("this machine has no 127.0.0.2: %v", err)
	}
	defer inside.Close()
	reached := make(chan struct{}, 1)
	go func() {
		if conn, err := inside.Accept(); err == nil {
			conn.Close()
			reached <- struct{}{}
		}
	}()

	var asked atomic.Int64
	guard := New(prefixes("127.0.0.1/32"))
	guard.resolver = resolver(t, func() netip.Addr {
		if asked.Add(1) == 1 {
			return netip.MustParseAddr("127.0.0.1")
		}
		return netip.MustParseAddr("127.0.0.2")
	})
	client := guard.Client(nil)
	if err := get(t, client, "http://rebind.example:"+port); err != nil {
		t.Fatalf("the first request: %v", err)
	}
	client.CloseIdleConnections()
	if err := get(t, client, "http://rebind.example:"+port); !errors.Is(err, ErrForbidden) {
		t.Errorf("the second request: %v", err)
	}
	select {
	case <-reached:
		t.Error("the second request reached the address inside")
	default:
	}
	if asked.Load() < 2 || allowed.Load() != 1 {
		t.Errorf("the name was asked for %d times, %d connections", asked.Load(), allowed.Load())
	}
}

// resolver asks a name server of the test's own, which answers every question for
// an IPv4 address with answer.
func resolver(t *testing.T, answer func() netip.Addr) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(reply(buf[:n], answer), from)
		}
	}()
	t.Cleanup(func() { server.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// reply answers one DNS question: header, the question again, and for type A one
// record that points back to the name.
func reply(query []byte, answer func() netip.Addr) []byte {
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end += 5
	out := append([]byte(nil), query[:end]...)
	out[2], out[3] = 0x81, 0x80
	binary.BigEndian.PutUint16(out[6:], 0)
	binary.BigEndian.PutUint16(out[8:], 0)
	binary.BigEndian.PutUint16(out[10:], 0)
	if binary.BigEndian.Uint16(query[end-4:]) == 1 {
		binary.BigEndian.PutUint16(out[6:], 1)
		addr := answer().As4()
		out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		out = append(out, addr[:]...)
	}
	return out
}
