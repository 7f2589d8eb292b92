package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"felhom.eu/hub/internal/app"
	"felhom.eu/hub/internal/config"
)

// stopWithin is how long a service manager is made to wait.
const stopWithin = 10 * time.Second

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the hub", Args: cobra.NoArgs,
		Long: `Run the hub until SIGINT or SIGTERM, after which it finishes what it began
within 10 s; a second signal ends it at once. SIGHUP pulls the fleet repository.`,
	}
	file := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		return serve(cmd.Context(), cfg, newLogger(cfg.Log, cmd.ErrOrStderr()))
	}
	return cmd
}

// serve runs the hub until ctx ends or the hub cannot go on.
func serve(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
	pull := make(chan os.Signal, 1)
	signal.Notify(pull, syscall.SIGHUP)
	defer signal.Stop(pull)

	a, err := app.New(app.Options{Config: cfg, Logger: log, Version: Version})
	if err != nil {
		return err
	}
	err = a.Start(ctx)
	for err == nil && ctx.Err() == nil {
		select {
		case err = <-a.Failed():
		case <-pull:
			a.Reload()
		case <-ctx.Done():
		}
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	return errors.Join(err, a.Stop(stopping))
}

// newLogger makes the log that the configuration asks for.
func newLogger(c config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // config knows only words that slog reads
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
