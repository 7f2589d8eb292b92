package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	netmail "net/mail"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"felhom.eu/hub/internal/message"
)

// mailer sends mail by SMTP. The host may be any that the guard lets through, so
// the connection is made here, and encrypted before anything is said: by STARTTLS
// (smtp), or at once (smtps). Only to hosts that the configuration allows, and
// without a password, may mail go in the clear (smtp with tls=none).
type mailer struct {
	senders  *Senders
	host     string
	address  string // host and port
	login    *login // nil: none
	from     string
	domain   string // of from
	to       []string
	implicit bool // TLS from the first byte
	plain    bool // no TLS at all
}

// Format implements fmt.Formatter: mail addresses are nobody's business, either.
func (*mailer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "<mail channel>") }

func (s *Senders) mail(u *url.URL) (Sender, error) {
	m := &mailer{senders: s, host: u.Hostname(), login: loginOf(u), implicit: u.Scheme == "smtps"}
	port := u.Port()
	switch {
	case port == "" && m.implicit:
		port = "465"
	case port == "":
		port = "587"
	}
	m.address = net.JoinHostPort(m.host, port)
	q, err := url.ParseQuery(u.RawQuery)
	for name := range q {
		if !slices.Contains([]string{"from", "to", "tls"}, name) {
			err = errors.New("not known")
		}
	}
	if err != nil || u.Path != "" && u.Path != "/" || u.Fragment != "" {
		return nil, errors.New("behind the mail server there are from, to and tls only: write ?from=hub@example.com&to=ops@example.com")
	}
	m.plain = q.Get("tls") == "none"
	if q.Has("tls") && !m.plain || m.plain && (m.implicit || u.User != nil) {
		return nil, errors.New("tls can only be none, with smtp:// and without a password; left out, STARTTLS is required")
	}
	if err := s.checkLiteral(m.host, m.plain); err != nil {
		return nil, err
	}
	m.from, m.to = q.Get("from"), strings.Split(q.Get("to"), ",")
	if sender, err := netmail.ParseAddress(m.from); err == nil {
		m.domain = sender.Address[strings.LastIndexByte(sender.Address, '@')+1:]
	}
	if _, err := m.compose(Message{ID: "x"}); err != nil || m.domain == "" || len(q["from"]) != 1 || len(q["to"]) != 1 {
		return nil, errors.New("from is one mail address, to is one or more with commas between: write ?from=hub@example.com&to=ops@example.com; a + in them is written as %2B")
	}
	return m, nil
}

// Send implements Sender. All recipients get it or none.
func (m *mailer) Send(ctx context.Context, msg Message) error {
	letter, err := m.compose(msg)
	if err != nil {
		return &Error{Class: Invalid}
	}
	ctx, cancel := context.WithTimeout(ctx, m.senders.limit)
	defer cancel()
	dial := m.senders.o.Guard.Dial
	if m.plain {
		dial = m.senders.o.Guard.DialPlain
	}
	conn, err := dial(ctx, "tcp", m.address)
	if err != nil {
		return broken(ctx, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // the library reads without a context
	defer stop()
	return m.converse(ctx, &shortConn{conn, maxConversation}, letter)
}

// maxConversation is how many bytes a mail server may say, its certificates
// included. The library would read a line of any length into memory.
const maxConversation = 64 << 10

// shortConn is a connection on which only so much can be read.
type shortConn struct {
	net.Conn
	left int
}

// Read implements io.Reader.
func (c *shortConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// converse speaks SMTP. What comes after the server took the letter cannot fail it.
func (m *mailer) converse(ctx context.Context, conn net.Conn, letter *mail.Msg) error {
	config := &tls.Config{ServerName: m.host, RootCAs: m.senders.o.Roots, MinVersion: tls.VersionTLS12}
	if m.implicit {
		encrypted := tls.Client(conn, config)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			return ofHandshake(mailError(ctx, err), err)
		}
		conn = encrypted
	}
	c, err := smtp.NewClient(conn, m.host)
	if err != nil {
		return mailError(ctx, err)
	}
	if err := c.Hello(m.domain); err != nil {
		return mailError(ctx, err)
	}
	if !m.implicit && !m.plain {
		if offered, _ := c.Extension("STARTTLS"); !offered {
			return &Error{Class: TLS}
		}
		if err := c.StartTLS(config); err != nil {
			return ofHandshake(mailError(ctx, err), err)
		}
	}
	if err := m.authenticate(ctx, c); err != nil {
		return err
	}
	if err := m.deliver(c, letter); err != nil {
		return mailError(ctx, err)
	}
	_ = c.Quit()
	return nil
}

func (m *mailer) authenticate(ctx context.Context, c *smtp.Client) error {
	if m.login == nil {
		return nil
	}
	user, password := m.login.user, m.login.password.Reveal()
	_, offered := c.Extension("AUTH")
	var auth smtp.Auth
	switch mechanisms := strings.Fields(offered); {
	case slices.Contains(mechanisms, "SCRAM-SHA-256"):
		auth = smtp.ScramSHA256Auth(user, password)
	case slices.Contains(mechanisms, "PLAIN"):
		auth = smtp.PlainAuth("", user, password, m.host, false)
	case slices.Contains(mechanisms, "LOGIN"):
		auth = smtp.LoginAuth(user, password, m.host, false)
	default:
		return &Error{Class: Invalid} // no way to show the password that is not worse than none
	}
	if err := c.Auth(auth); err != nil {
		return mailError(ctx, err)
	}
	return nil
}

func (m *mailer) deliver(c *smtp.Client, letter *mail.Msg) error {
	from, err := letter.GetSender(false)
	if err != nil {
		return err
	}
	if err := c.Mail(from); err != nil {
		return err
	}
	recipients, err := letter.GetRecipients()
	if err != nil {
		return err
	}
	for _, to := range recipients {
		if err := c.Rcpt(to); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := letter.WriteTo(w); err != nil {
		return err // without the final dot: the server drops it
	}
	return w.Close()
}

func (m *mailer) compose(msg Message) (*mail.Msg, error) {
	letter := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := letter.From(m.from); err != nil {
		return nil, err
	}
	if err := letter.To(m.to...); err != nil {
		return nil, err
	}
	letter.SetMessageIDWithValue(msg.ID + "@" + m.domain) // a repeated delivery has the same
	letter.SetDateWithValue(m.senders.o.Now())
	letter.SetGenHeader("Auto-Submitted", "auto-generated") // so that nobody's absence note answers
	letter.SetGenHeader("X-Felhom-Event", string(msg.Event.Type))
	letter.SetGenHeader("X-Felhom-Severity", msg.Event.Severity())
	letter.Subject(msg.Text.Subject)
	letter.SetBodyString(mail.TypeTextPlain, msg.Text.Render(message.Plain))
	return letter, nil
}

// mailError classifies an error of the conversation.
func mailError(ctx context.Context, err error) *Error {
	var reply *textproto.Error
	if !errors.As(err, &reply) || ctx.Err() != nil {
		return broken(ctx, err)
	}
	if reply.Code/100 == 4 {
		return &Error{Class: Busy, Status: reply.Code}
	}
	return &Error{Class: Refused, Status: reply.Code}
}
