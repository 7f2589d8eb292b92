package httpapi

import "time"

// NewWithTimeouts is New with shorter timeouts.
func NewWithTimeouts(o Options, header, read time.Duration) (*Server, error) {
	return newServer(o, timeouts{header: header, read: read, write: 5 * time.Second, idle: 5 * time.Second})
}

// InFlight returns the bytes reserved for bodies.
func (s *Server) InFlight() int64 { return s.bodies.memory.Used() }
