package torture

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"time"
)

// link is an agent's keep-alive connection.
type link struct {
	address string
	conn    net.Conn
	reader  *bufio.Reader
}

// post sends a whole request and returns the status of the reply, 0 where none
// came. With hangUp it does not wait for one.
func (l *link) post(request []byte, hangUp bool) int {
	if l.conn == nil {
		conn, err := net.DialTimeout("tcp", l.address, exchangeTimeout)
		if err != nil {
			return 0
		}
		l.conn, l.reader = conn, bufio.NewReader(conn)
	}
	status, keep := exchange(l.conn, l.reader, request, hangUp)
	if !keep {
		l.close()
	}
	return status
}

func exchange(conn net.Conn, reader *bufio.Reader, request []byte, hangUp bool) (status int, keep bool) {
	if conn.SetDeadline(time.Now().Add(exchangeTimeout)) != nil {
		return 0, false
	}
	if _, err := conn.Write(request); err != nil || hangUp {
		return 0, false
	}
	reply, err := http.ReadResponse(reader, nil)
	if err != nil {
		return 0, false
	}
	defer reply.Body.Close()
	_, err = io.Copy(io.Discard, reply.Body)
	return reply.StatusCode, err == nil && !reply.Close
}

func (l *link) close() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
}
