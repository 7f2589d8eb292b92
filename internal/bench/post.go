package bench

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// exchangeTimeout bounds one request and its answer.
const exchangeTimeout = 30 * time.Second

func newPoster(l Load) poster {
	if l.HTTP == 2 {
		return &poster2{load: l}
	}
	return &poster1{load: l}
}

// poster1 speaks HTTP/1.1. It is written by hand: net/http's client would take
// more of the processors than the handler that is measured.
type poster1 struct {
	load    Load
	conn    net.Conn
	reader  *bufio.Reader
	request []byte
}

func (p *poster1) open() (err error) {
	if p.conn, err = net.Dial("tcp", p.load.Address); err != nil {
		return err
	}
	p.reader = bufio.NewReader(p.conn)
	return nil
}

func (p *poster1) close() {
	if p.conn != nil {
		_ = p.conn.Close()
		p.conn = nil
	}
}

func (p *poster1) post(a *agent, body []byte) (status int, err error) {
	if p.conn == nil {
		return 0, net.ErrClosed
	}
	b := append(p.request[:0], "POST "...)
	b = append(append(b, a.path...), " HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n"...)
	if p.load.Encoding != "identity" {
		b = append(append(append(b, "Content-Encoding: "...), p.load.Encoding...), "\r\n"...)
	}
	b = append(append(append(b, "Authorization: Bearer "...), a.key...), "\r\nContent-Length: "...)
	b = append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n\r\n"...)
	p.request = append(b, body...)
	if err := p.conn.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return 0, err
	}
	if _, err := p.conn.Write(p.request); err != nil {
		return 0, err
	}
	return readAnswer(p.reader)
}

var (
	lengthHeader = []byte("Content-Length: ")
	closeHeader  = []byte("Connection: close")
)

// readAnswer reads an answer of net/http's server, whose header has a length.
func readAnswer(r *bufio.Reader) (status int, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, errors.New("no answer of HTTP/1.1")
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, err
	}
	length, last := 0, false
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case len(line) == 0:
			if _, err = r.Discard(length); err == nil && last && status == http.StatusOK {
				err = io.EOF
			}
			return status, err
		case bytes.HasPrefix(line, lengthHeader):
			if length, err = strconv.Atoi(string(line[len(lengthHeader):])); err != nil {
				return 0, err
			}
		case bytes.Equal(line, closeHeader):
			last = true
		}
	}
}

// poster2 speaks HTTP/2 over TLS, on a connection of its own, as an agent does.
type poster2 struct {
	load   Load
	client *http.Client
}

func (p *poster2) open() error {
	p.client = &http.Client{Timeout: exchangeTimeout, Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // the certificate is thrown away with the run
	}}
	res, err := p.client.Head("https://" + p.load.Address + "/")
	if err != nil {
		return err
	}
	if res.ProtoMajor != 2 {
		err = fmt.Errorf("the hub answered with %s, not HTTP/2", res.Proto)
	}
	return errors.Join(err, res.Body.Close())
}

func (p *poster2) close() {
	if p.client != nil {
		p.client.CloseIdleConnections()
	}
}

func (p *poster2) post(a *agent, body []byte) (status int, err error) {
	req, err := http.NewRequest(http.MethodPost, "https://"+p.load.Address+a.path, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+a.key)
	req.Header.Set("Content-Type", "application/json")
	if p.load.Encoding != "identity" {
		req.Header.Set("Content-Encoding", p.load.Encoding)
	}
	res, err := p.client.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, errors.Join(err, res.Body.Close())
}
