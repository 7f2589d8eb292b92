package torture

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// What the proxy knows of ClickHouse's native protocol: the text of a query
// stands in its packet as it is; a query and an insert's data both end in an
// empty block; and an exception is a packet of its own. (clickhouse-go,
// lib/proto and conn_send_query.go; a client packet is flushed whole.)

// emptyBlock is the end of the packet of an empty block under LZ4, behind the
// checksum: method, compressed size with these nine bytes, plain size, one run
// of ten literals: the block's info, no columns, no rows.
var emptyBlock = []byte{0x82, 20, 0, 0, 0, 10, 0, 0, 0, 10 << 4, 1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0}

var insertText = []byte("INSERT INTO `") // only package clickhouse's block inserts quote the table

// insertWatch follows the inserts in what a client says on one connection.
type insertWatch struct {
	data   bool   // the query is through: what comes is data, up to the second empty block
	query  bool   // the query has begun, and its empty block has not come
	behind []byte // the end of the last piece
}

// see takes the next piece: begun says that an insert's query begins in it,
// ended that an insert's data end with it.
func (w *insertWatch) see(b []byte) (begun, ended bool) {
	if bytes.Contains(b, insertText) {
		begun, w.query, w.data = true, true, false
	}
	w.behind = append(w.behind, b[max(0, len(b)-len(emptyBlock)):]...)
	w.behind = w.behind[max(0, len(w.behind)-len(emptyBlock)):]
	if !bytes.Equal(w.behind, emptyBlock) {
		return begun, false
	}
	ended = w.data
	w.data, w.query = w.query, false
	return begun, ended
}

// exception is the packet by which a server refuses.
func exception(code int) []byte {
	b := []byte{2}
	b = binary.LittleEndian.AppendUint32(b, uint32(code))
	for _, text := range []string{"DB::Exception", fmt.Sprintf("DB::Exception: refused by the harness with code %d", code), ""} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	return append(b, 0) // nothing nested
}
