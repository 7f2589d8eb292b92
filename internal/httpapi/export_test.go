package httpapi

import (
	"time"

	"github.com/gorilla/mux"
)

// NewWithTimeouts is New with shorter timeouts.
func NewWithTimeouts(o Options, header, read time.Duration) (*Server, error) {
	return newServer(o, timeouts{header: header, read: read, write: 5 * time.Second, idle: 5 * time.Second})
}

// PublicPaths returns the path of every route that agents reach.
func (s *Server) PublicPaths() (paths []string) {
	_ = s.publicRoutes().Walk(func(r *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := r.GetPathTemplate()
		paths = append(paths, path)
		return err
	})
	return paths
}

// InFlight returns the bytes reserved for bodies.
func (s *Server) InFlight() int64 { return s.bodies.memory.Used() }
