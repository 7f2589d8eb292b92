// Package wire knows every byte that enters or leaves the hub: reports,
// replies, problems, and the decisions that the spool keeps.
//
// One idea carries the report decoder: the syntax of the whole body is judged
// once, and everything after that reads slices of a text known to be valid. So a
// mistake inside one list item can cost that item alone, and names are judged
// exactly where they stand.
//
// It is the home of github.com/go-json-experiment/json, which, unlike
// encoding/json, refuses bad UTF-8, lone surrogates and duplicate names.
package wire
