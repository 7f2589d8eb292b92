package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/config"
	"felhom.eu/hub/internal/engine"
	"felhom.eu/hub/internal/hub"
)

func engineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "engine --dir DIR", Short: "Run the embedded ClickHouse alone", Args: cobra.NoArgs,
		Long: `Run the embedded ClickHouse in a folder, without a hub, until SIGINT or SIGTERM.
It is what hub serve runs in data_dir/clickhouse where clickhouse.dsn is empty.`,
	}
	var o engine.Options
	cmd.Flags().StringVar(&o.Dir, "dir", "", "`folder` of its data; made where it is missing")
	cmd.Flags().IntVar(&o.TCPPort, "tcp-port", 0, "native port on 127.0.0.1; 0: a free one")
	cmd.Flags().IntVar(&o.HTTPPort, "http-port", 0, "HTTP port on 127.0.0.1; 0: a free one")
	_ = cmd.MarkFlagRequired("dir")
	asJSON := jsonFlag(cmd, `{"tcp":"host:port","http":"host:port"}`)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Logger = newLogger(config.Default().Log, cmd.ErrOrStderr())
		e, err := engine.New(o)
		if err != nil {
			return err
		}
		if err := e.Start(cmd.Context()); err != nil {
			return err
		}
		err = printEngine(cmd.OutOrStdout(), e.Describe(), *asJSON)
		if err == nil {
			<-cmd.Context().Done()
		}
		stopping, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), stopWithin)
		defer cancel()
		return errors.Join(err, e.Stop(stopping))
	}
	cmd.AddCommand(engineFetchCommand())
	return cmd
}

func printEngine(w io.Writer, d engine.Description, asJSON bool) error {
	if asJSON {
		return printJSON(w, d.Endpoint)
	}
	_, err := fmt.Fprintf(w, `ClickHouse runs
  HTTP    %s
  native  %s
  try     curl --data-binary 'SELECT version()' '%s'
`, d.HTTP, d.TCP, d.HTTPURL(engine.RoleAnalyst).Reveal())
	return err
}

func engineFetchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "fetch", Short: "Fetch the engine library into the cache, and print where it is", Args: cobra.NoArgs,
		Long: `Fetch the pinned engine library through npm, verify its SHA-256 and unpack it into
the cache. Where it is there already, nothing is done.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			progress := io.Discard
			if onTerminal(cmd.ErrOrStderr()) {
				progress = cmd.ErrOrStderr()
			}
			path, err := engine.Fetch(cmd.Context(), progress)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), path)
			return err
		},
	}
}

func dsnCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dsn", Short: "Print a URL with user and password, for any ClickHouse client", Args: cobra.NoArgs,
		Long: `Print a connection URL of the ClickHouse that the configuration means: of the
engine that runs in data_dir, or of clickhouse.dsn with the password filled in.
Analysts are given --role analyst --http.`,
	}
	file := configFlag(cmd)
	role := cmd.Flags().String("role", string(engine.RoleHub), "`user` to connect as: hub or analyst")
	overHTTP := cmd.Flags().Bool("http", false, "the HTTP interface, as for curl, instead of the native protocol")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r := engine.Role(*role)
		if r != engine.RoleHub && r != engine.RoleAnalyst {
			return wrongUse{fmt.Errorf("--role is hub or analyst, not %q", *role)}
		}
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		url, err := clickhouseURL(cfg, r, *overHTTP)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), url.Reveal())
		return err
	}
	return cmd
}

// clickhouseURL returns the URL by which role connects.
func clickhouseURL(cfg *config.Config, role engine.Role, overHTTP bool) (hub.Secret, error) {
	if cfg.ClickHouse.DSN != "" {
		return ownURL(cfg, role, overHTTP)
	}
	d, err := engine.Describe(app.EngineDir(cfg))
	if err != nil {
		return hub.Secret{}, err
	}
	if overHTTP {
		return d.HTTPURL(role), nil
	}
	return d.NativeURL(role), nil
}

// ownURL is clickhouseURL for a ClickHouse of one's own, of which the hub knows
// no more than how it connects itself.
func ownURL(cfg *config.Config, role engine.Role, overHTTP bool) (hub.Secret, error) {
	if role == engine.RoleAnalyst {
		return hub.Secret{}, &hub.Error{Message: "clickhouse.dsn names a ClickHouse of your own, and its users are yours",
			Hint: "GRANT SELECT on the hub's database to a user, and connect as that one"}
	}
	if overHTTP {
		return hub.Secret{}, &hub.Error{Message: "clickhouse.dsn names only the native port of your ClickHouse",
			Hint: "leave --http out, or use the HTTP address that your server is configured with"}
	}
	dsn, err := url.Parse(cfg.ClickHouse.DSN)
	if err != nil {
		return hub.Secret{}, errors.New("clickhouse.dsn is not a URL: write clickhouse://user@host:9000/hub")
	}
	password, err := app.Password(cfg)
	if err != nil {
		return hub.Secret{}, err
	}
	if !password.Empty() {
		dsn.User = url.UserPassword(dsn.User.Username(), password.Reveal())
	}
	return hub.NewSecret(dsn.String()), nil
}
