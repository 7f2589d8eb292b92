package notify

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	netmail "net/mail"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
	"felhom.eu/hub/internal/message"
)

// smtpServer is a small mail server with STARTTLS and AUTH. Replies to a command
// can be overruled, to make it fail at any place.
type smtpServer struct {
	address  string
	config   *tls.Config
	implicit bool
	offers   []string          // extensions besides STARTTLS
	replies  map[string]string // by command: what it answers instead; "": it hangs up

	mu      sync.Mutex
	logins  []string
	rcpts   []string
	letters []string
	plain   bool // something but EHLO, STARTTLS and QUIT came in the clear
}

// newSMTP serves with the certificate of server.
func newSMTP(t *testing.T, server *httptest.Server, change func(*smtpServer)) *smtpServer {
	t.Helper()
	s := &smtpServer{config: &tls.Config{Certificates: server.TLS.Certificates}, offers: []string{"AUTH PLAIN LOGIN", "8BITMIME"}, replies: map[string]string{}}
	if change != nil {
		change(s)
	}
	s.address = listen(t, func(conn net.Conn) {
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		encrypted := s.implicit
		if encrypted {
			conn = tls.Server(conn, s.config)
		}
		s.converse(conn, encrypted)
	})
	return s
}

func (s *smtpServer) converse(conn net.Conn, encrypted bool) {
	in := bufio.NewReader(conn)
	say := func(text string) { _, _ = io.WriteString(conn, text+"\r\n") }
	say("220 mail.example ESMTP")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		command, _, _ := strings.Cut(strings.ToUpper(line), " ")
		command, _, _ = strings.Cut(command, ":")
		if !encrypted && !slices.Contains([]string{"EHLO", "STARTTLS", "QUIT"}, command) {
			s.mu.Lock()
			s.plain = true
			s.mu.Unlock()
		}
		if reply, ok := s.replies[command]; ok {
			if reply == "" {
				return
			}
			say(reply)
			continue
		}
		switch command {
		case "EHLO":
			offers := s.offers
			if !encrypted && s.config != nil {
				offers = []string{"STARTTLS"}
			}
			say("250-mail.example")
			for _, o := range offers {
				say("250-" + o)
			}
			say("250 SIZE 1000000")
		case "STARTTLS":
			say("220 go ahead")
			s.startTLS(conn)
			return
		case "AUTH":
			if !s.login(line, in, say) {
				return
			}
		case "MAIL":
			say("250 ok")
		case "RCPT":
			s.mu.Lock()
			s.rcpts = append(s.rcpts, line)
			s.mu.Unlock()
			if strings.Contains(line, "nobody") {
				say("550 5.1.1 no such user " + token)
				continue
			}
			say("250 ok")
		case "DATA":
			say("354 go ahead")
			if !s.letter(in) {
				return
			}
			reply, ok := s.replies["."]
			if !ok {
				reply = "250 taken"
			}
			if reply == "" {
				return
			}
			say(reply)
		case "QUIT":
			say("221 bye")
			return
		default:
			say("502 not known")
		}
	}
}

// startTLS goes on with TLS, where the server greets no more.
func (s *smtpServer) startTLS(conn net.Conn) {
	encrypted := tls.Server(conn, s.config)
	if encrypted.Handshake() != nil {
		return
	}
	s.converse(&muteGreeting{Conn: encrypted}, true)
}

// muteGreeting swallows the first line that is written.
type muteGreeting struct {
	net.Conn
	greeted bool
}

func (m *muteGreeting) Write(p []byte) (int, error) {
	if !m.greeted {
		m.greeted = true
		return len(p), nil
	}
	return m.Conn.Write(p)
}

func (s *smtpServer) login(line string, in *bufio.Reader, say func(string)) bool {
	fields := strings.Fields(line)
	var got string
	if fields[1] == "PLAIN" {
		raw, _ := base64.StdEncoding.DecodeString(fields[2])
		got = strings.ReplaceAll(strings.TrimPrefix(string(raw), "\x00"), "\x00", ":")
	} else {
		for _, prompt := range []string{"Username:", "Password:"} {
			say("334 " + base64.StdEncoding.EncodeToString([]byte(prompt)))
			answer, err := in.ReadString('\n')
			if err != nil {
				return false
			}
			raw, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(answer))
			got += ":" + string(raw)
		}
		got = got[1:]
	}
	s.mu.Lock()
	s.logins = append(s.logins, got)
	s.mu.Unlock()
	if !strings.HasSuffix(got, token) {
		say("535 5.7.8 wrong password " + got)
		return true
	}
	say("235 welcome")
	return true
}

func (s *smtpServer) letter(in *bufio.Reader) bool {
	var b strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
	s.mu.Lock()
	s.letters = append(s.letters, b.String())
	s.mu.Unlock()
	return true
}

const mailTail = "?from=Felhom%20%3Chub@example.com%3E&to=ops@example.com,chef@example.com"

func TestMailArrives(t *testing.T) {
	certificate := record(t, true, nil)
	s := newSenders(t, certificate.Server)
	for _, c := range []struct {
		name, scheme, login, tail string
		change                    func(*smtpServer)
	}{
		{"STARTTLS and PLAIN", "smtp", "hub:" + token + "@", "", nil},
		{"TLS at once and LOGIN", "smtps", "hub:" + token + "@", "", func(s *smtpServer) { s.implicit, s.offers = true, []string{"AUTH LOGIN"} }},
		{"without a login", "smtp", "", "", nil},
		{"in the clear", "smtp", "", "&tls=none", func(s *smtpServer) { s.config = nil }},
	} {
		server := newSMTP(t, certificate.Server, c.change)
		m := example(hub.HostDown)
		for range 2 {
			if err := parse(t, s, c.scheme+"://"+c.login+server.address+mailTail+c.tail).Send(t.Context(), m); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		if len(server.letters) != 2 || len(server.rcpts) != 4 || server.plain != (c.tail != "") {
			t.Fatalf("%s: %d letters to %q, in the clear: %v", c.name, len(server.letters), server.rcpts, server.plain)
		}
		if c.login != "" && (len(server.logins) != 2 || server.logins[0] != "hub:"+token) {
			t.Errorf("%s: logins %q", c.name, server.logins)
		}
		first, second := readLetter(t, server.letters[0]), readLetter(t, server.letters[1])
		if id := first.Header.Get("Message-ID"); id != "<"+m.ID+"@example.com>" || id != second.Header.Get("Message-ID") {
			t.Errorf("%s: Message-ID %q", c.name, id)
		}
	}
}

func readLetter(t *testing.T, text string) *netmail.Message {
	t.Helper()
	letter, err := netmail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return letter
}

func TestLetter(t *testing.T) {
	certificate := record(t, true, nil)
	server := newSMTP(t, certificate.Server, nil)
	m := example(hub.HostDown)
	m.Text = message.Write(message.Input{Event: m.Event, Reader: message.Reader{Language: message.German},
		Names: message.Names{Host: "Müller\r\nBcc: all@example.com", Customer: "Bäckerei Groß"}})
	m.Event.Level = "critical\r\nBcc: all@example.com"
	if err := parse(t, newSenders(t, certificate.Server), "smtp://"+server.address+mailTail).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	letter := readLetter(t, server.letters[0])
	for name, want := range map[string]string{
		"From": `"Felhom" <hub@example.com>`, "To": "<ops@example.com>, <chef@example.com>", "Bcc": "", "Auto-Submitted": "auto-generated",
		"X-Felhom-Event": "host_down", "User-Agent": "", "X-Mailer": "", "Date": testTime.Format(time.RFC1123Z), "Content-Transfer-Encoding": "quoted-printable",
	} {
		if got := letter.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(letter.Header.Get("Subject"))
	if err != nil || subject != m.Text.Subject || !strings.Contains(subject, "Müller Bcc: all@example.com") {
		t.Errorf("subject %q, %v", subject, err)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(letter.Body))
	if got := strings.ReplaceAll(string(body), "\r\n", "\n"); err != nil || strings.TrimSpace(got) != strings.TrimSpace(m.Text.Render(message.Plain)) {
		t.Errorf("body %q, %v", got, err)
	}
}

func TestMailFailures(t *testing.T) {
	certificate := record(t, true, nil)
	trusting, strangers := newSenders(t, certificate.Server), newSenders(t, nil)
	reply := func(command, reply string) func(*smtpServer) {
		return func(s *smtpServer) { s.replies[command] = reply }
	}
	for _, c := range []struct {
		name    string
		senders *Senders
		url     string
		change  func(*smtpServer)
		want    Error
	}{
		{"unknown authority", strangers, "smtp://%s" + mailTail, nil, Error{Class: TLS}},
		{"unknown authority at once", strangers, "smtps://%s" + mailTail, func(s *smtpServer) { s.implicit = true }, Error{Class: TLS}},
		{"no STARTTLS", trusting, "smtp://%s" + mailTail, func(s *smtpServer) { s.config = nil }, Error{Class: TLS}},
		{"STARTTLS refused", trusting, "smtp://%s" + mailTail, reply("STARTTLS", "454 not now"), Error{Class: Busy, Status: 454}},
		{"wrong password", trusting, "smtp://hub:wrong@%s" + mailTail, nil, Error{Class: Refused, Status: 535}},
		{"no way to log in", trusting, "smtp://hub:" + token + "@%s" + mailTail, func(s *smtpServer) { s.offers = []string{"AUTH GSSAPI"} }, Error{Class: Invalid}},
		{"greylisted", trusting, "smtp://%s" + mailTail, reply("RCPT", "451 4.7.1 later, "+token), Error{Class: Busy, Status: 451}},
		{"sender refused", trusting, "smtp://%s" + mailTail, reply("MAIL", "550 no"), Error{Class: Refused, Status: 550}},
		{"one of two does not exist", trusting, "smtp://%s?from=hub@example.com&to=ops@example.com,nobody@example.com", nil, Error{Class: Refused, Status: 550}},
		{"letter refused", trusting, "smtp://%s" + mailTail, reply(".", "554 spam"), Error{Class: Refused, Status: 554}},
		{"disk full", trusting, "smtp://%s" + mailTail, reply(".", "452 no room"), Error{Class: Busy, Status: 452}},
		{"hangs up at the letter", trusting, "smtp://%s" + mailTail, reply(".", ""), Error{Class: Unreachable}},
		{"hangs up", trusting, "smtp://%s" + mailTail, reply("MAIL", ""), Error{Class: Unreachable}},
	} {
		server := newSMTP(t, certificate.Server, c.change)
		err := parse(t, c.senders, strings.Replace(c.url, "%s", server.address, 1)).Send(t.Context(), example(hub.HostDown))
		wantError(t, c.name, err, c.want)
	}
	// What goes wrong after the letter was taken is no failure: it would come twice.
	server := newSMTP(t, certificate.Server, reply("QUIT", ""))
	if err := parse(t, trusting, "smtp://"+server.address+mailTail).Send(t.Context(), example(hub.HostDown)); err != nil || len(server.letters) != 1 {
		t.Errorf("hangs up after the letter: %v, %d letters", err, len(server.letters))
	}
}

// TestMailServerThatStops: it hangs in the middle, and the time is bounded all the same.
func TestMailServerThatStops(t *testing.T) {
	certificate := record(t, true, nil)
	stop := make(chan struct{})
	address := listen(t, func(conn net.Conn) {
		in := bufio.NewReader(conn)
		_, _ = io.WriteString(conn, "220 hello\r\n")
		_, _ = in.ReadString('\n')
		_, _ = io.WriteString(conn, "250 hello\r\n")
		<-stop
	})
	defer close(stop)
	s := newSenders(t, certificate.Server)
	s.limit = 100 * time.Millisecond
	err := parse(t, s, "smtp://"+address+mailTail+"&tls=none").Send(t.Context(), example(hub.HostDown))
	wantError(t, "stops", err, Error{Class: Timeout})
}

// TestMailInTheClearOnlyWhereAllowed: that an address is public does not suffice.
func TestMailInTheClearOnlyWhereAllowed(t *testing.T) {
	s := newSenders(t, nil)
	s.limit = time.Second
	m := parse(t, s, "smtp://mail.example.com"+mailTail+"&tls=none").(*mailer)
	m.address = "93.184.215.14:25" // as if the name led there
	wantError(t, "in the clear", m.Send(t.Context(), example(hub.HostDown)), Error{Class: Forbidden})
}

// TestEndlessGreeting: a hostile server costs no memory.
func TestEndlessGreeting(t *testing.T) {
	written := make(chan int, 1)
	address := listen(t, func(conn net.Conn) {
		n, chunk := 0, []byte(strings.Repeat("2", 32<<10))
		for n < 64<<20 {
			k, err := conn.Write(chunk)
			n += k
			if err != nil {
				break
			}
		}
		written <- n
	})
	err := parse(t, newSenders(t, nil), "smtp://"+address+mailTail+"&tls=none").Send(t.Context(), example(hub.HostDown))
	wantError(t, "endless", err, Error{Class: Unreachable})
	if n := <-written; n >= 64<<20 {
		t.Errorf("%d bytes were taken", n)
	}
}
