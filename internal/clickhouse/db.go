// Package clickhouse is the hub's side of the database: its schema, the one
// way in which rows enter it, and the questions the hub asks of it.
//
// It speaks the native protocol to the embedded engine, a server or a cluster
// alike. Nothing here decides what to send again after an error: that is
// package ship's work; this package offers it one block, one table, one token
// ([DB.Insert]) and the questions that settle a doubt ([DB.Count], [DB.Boot]).
//
// No query reads the server's clock: times are parameters.
package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"

	"felhom.eu/hub/internal/hub"
)

// Options says where the database is.
type Options struct {
	DSN      string        // clickhouse://user@host:9000/database
	Password hub.Secret    // overrides a password in DSN
	Timeout  time.Duration // of one attempt of a query or insert; default 60 s

	// Resolve, where set, is asked at each dial for host:port and password in
	// place of those above: the embedded engine has them only once it runs, and
	// may move when it is restarted. An empty address means that it is away.
	Resolve func() (address string, password hub.Secret)
}

const (
	defaultTimeout = 60 * time.Second
	dialTimeout    = 5 * time.Second
	maxConns       = 8

	// oldest supported release: 25.8 LTS.
	minMajor, minMinor = 25, 8
)

var errAway = errors.New("the engine does not run")

// DB is a pool of connections. It is safe for concurrent use.
type DB struct {
	conn     driver.Conn
	database string
	timeout  time.Duration
}

// Open reads the DSN and makes the pool. It does not connect: the hub starts
// with the database away.
func Open(o Options) (*DB, error) {
	opts, err := ch.ParseDSN(o.DSN)
	if err != nil {
		return nil, fmt.Errorf("clickhouse.dsn: %w (write clickhouse://user@host:9000/hub)", err)
	}
	if opts.Protocol != ch.Native {
		return nil, errors.New("clickhouse.dsn: only the native protocol is spoken: write clickhouse://user@host:9000/hub")
	}
	if opts.Auth.Database == "" {
		opts.Auth.Database = "hub"
	}
	if !o.Password.Empty() {
		opts.Auth.Password = o.Password.Reveal()
	}
	if o.Resolve != nil {
		opts.DialStrategy = func(ctx context.Context, _ int, opt *ch.Options, dial ch.Dial) (ch.DialResult, error) {
			address, password := o.Resolve()
			if address == "" {
				return ch.DialResult{}, errAway
			}
			now := *opt
			now.Auth.Password = password.Reveal()
			return dial(ctx, address, &now)
		}
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	opts.Compression = &ch.Compression{Method: ch.CompressionLZ4}
	opts.DialTimeout = dialTimeout
	opts.ReadTimeout = o.Timeout
	opts.MaxOpenConns, opts.MaxIdleConns = maxConns, maxConns
	conn, err := ch.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("clickhouse.dsn: %w", err)
	}
	return &DB{conn: conn, database: opts.Auth.Database, timeout: o.Timeout}, nil
}

// Close closes every connection.
func (db *DB) Close() error { return db.conn.Close() }

// Check connects and says what is wrong with the server, if anything is: it
// does not answer, or is too old.
func (db *DB) Check(ctx context.Context) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := db.conn.QueryRow(ctx, "SELECT version()").Scan(&version); err != nil {
		return "", err
	}
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return version, fmt.Errorf("the server says that it is version %q", version)
	}
	if major < minMajor || major == minMajor && minor < minMinor {
		return version, fmt.Errorf("the server is ClickHouse %s; %d.%d or later is needed", version, minMajor, minMinor)
	}
	return version, nil
}

// queryContext bounds one query or insert and carries its settings.
func (db *DB) queryContext(ctx context.Context, s ch.Settings) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, db.timeout)
	return ch.Context(ctx, ch.WithSettings(s)), cancel
}

// Code numbers of ClickHouse's ErrorCodes.cpp that say "these rows cannot be
// taken".
var refusedCodes = map[int32]bool{
	6:   true, // CANNOT_PARSE_TEXT
	69:  true, // ARGUMENT_OUT_OF_BOUND
	72:  true, // CANNOT_PARSE_NUMBER
	117: true, // INCORRECT_DATA
	128: true, // TOO_LARGE_ARRAY_SIZE
	131: true, // TOO_LARGE_STRING_SIZE
	321: true, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
	349: true, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
	395: true, // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
	407: true, // DECIMAL_OVERFLOW
	469: true, // VIOLATED_CONSTRAINT
	691: true, // UNKNOWN_ELEMENT_OF_ENUM
}

// Code numbers that say "not before a person mends something", whatever the rows.
var permanentCodes = map[int32]bool{
	16:  true, // NO_SUCH_COLUMN_IN_TABLE
	20:  true, // NUMBER_OF_COLUMNS_DOESNT_MATCH
	47:  true, // UNKNOWN_IDENTIFIER
	53:  true, // TYPE_MISMATCH
	60:  true, // UNKNOWN_TABLE
	81:  true, // UNKNOWN_DATABASE
	497: true, // ACCESS_DENIED
	516: true, // AUTHENTICATION_FAILED
}

// errValue is the driver's refusal to put a value into a column.
var errValue = errors.New("a value does not fit its column")

// Refused reports whether err says that these rows cannot be taken, though others
// of the same table may be.
func Refused(err error) bool {
	var e *proto.Exception
	return errors.Is(err, errValue) || errors.As(err, &e) && refusedCodes[e.Code]
}

// Permanent reports whether err is an answer of the server that a retry of the
// same will not change until a person does something.
func Permanent(err error) bool {
	var e *proto.Exception
	return Refused(err) || errors.As(err, &e) && permanentCodes[e.Code]
}

// quoteName quotes an identifier.
func quoteName(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}
