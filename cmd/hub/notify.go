package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func notifyCommand() *cobra.Command {
	cmd := group("notify", "See and steer the messages by which people are told of events")
	cmd.AddCommand(notifyListCommand(), notifyRetryCommand(), notifyTestCommand())
	return cmd
}

func notifyListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List messages that wait for their channel, and those that were given up", Args: cobra.NoArgs,
		Long: `Ask the hub that runs on data_dir which messages wait, and which are dead: refused by
their receiver, or not delivered for a day. Of a channel at most 1,000 dead ones are
kept; the table notifications has every attempt.`,
		Example: `  hub notify list
  hub notify list --dead --json`,
	}
	file := configFlag(cmd)
	asJSON := jsonFlag(cmd, "everything on one line")
	dead := cmd.Flags().Bool("dead", false, "dead ones alone")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		reply, err := askHub(cmd.Context(), cfg, http.MethodGet, fmt.Sprintf("/notify?dead=%t", *dead), nil)
		if err != nil {
			return err
		}
		if *asJSON {
			return printCompact(cmd.OutOrStdout(), reply)
		}
		var items []messageView
		if err := json.Unmarshal(reply, &items); err != nil {
			return fmt.Errorf("the hub's answer: %w", err)
		}
		return printMessages(cmd.OutOrStdout(), items, *dead)
	}
	return cmd
}

// messageView is what people are shown of a message. It reads by name.
type messageView struct {
	MessageID  string    `json:"message_id"`
	Channel    string    `json:"channel"`
	CustomerID string    `json:"customer_id"`
	Type       string    `json:"type"`
	HostID     string    `json:"host_id"`
	Events     int       `json:"events"`
	QueuedAt   time.Time `json:"queued_at"`
	Attempts   int       `json:"attempts"`
	Error      string    `json:"error"`
	Dead       bool      `json:"dead"`
}

func printMessages(w io.Writer, items []messageView, deadOnly bool) error {
	if len(items) == 0 {
		text := "no message waits, and none is dead"
		if deadOnly {
			text = "no message is dead"
		}
		_, err := fmt.Fprintln(w, text)
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CHANNEL\tMESSAGE\tABOUT\tSINCE\tATTEMPTS\tSTATE")
	for _, m := range items {
		about := m.Type
		switch {
		case m.Events > 1:
			about = fmt.Sprintf("%d events", m.Events)
		case m.HostID != "":
			about += " " + m.HostID
		}
		state := "waits"
		if m.Dead {
			state = "dead"
		}
		if m.Error != "" {
			state += ": " + m.Error
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", m.Channel, m.MessageID, about, m.QueuedAt.UTC().Format(time.RFC3339), m.Attempts, state)
	}
	return table.Flush()
}

func notifyRetryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "retry {MESSAGE | CHANNEL | --all}", Short: "Send dead messages again, and try channels at once", Args: cobra.MaximumNArgs(1),
		Long: `Have the hub that runs on data_dir send dead messages again: one, all of a channel, or
all. A channel that waits after failures is tried at once.`,
		Example: `  hub notify retry fleet/ops
  hub notify retry --all`,
	}
	file := configFlag(cmd)
	asJSON := jsonFlag(cmd, "the answer on one line")
	all := cmd.Flags().Bool("all", false, "all messages and channels")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *all == (len(args) == 1) || len(args) == 1 && args[0] == "" {
			return wrongUse{errors.New("name one message or channel, or --all")}
		}
		target := ""
		if !*all {
			target = args[0]
		}
		reply, err := notifyAsk(cmd, *file, "/notify/retry", target)
		if err != nil {
			return err
		}
		if *asJSON {
			return printCompact(cmd.OutOrStdout(), reply)
		}
		var done struct {
			Retried int `json:"retried"`
		}
		if err := json.Unmarshal(reply, &done); err != nil {
			return fmt.Errorf("the hub's answer: %w", err)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "dead messages that are sent again: %d\n", done.Retried)
		return err
	}
	return cmd
}

func notifyTestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "test CHANNEL", Short: "Send a test message to a channel of the fleet in force", Args: cobra.ExactArgs(1),
		Long: `Have the hub that runs on data_dir send a message to one channel that says that it is a
test, and tell how that went. The name of a channel is that of its owner and its own:
fleet/ops, customer/acme/chat.`,
		Example: `  hub notify test fleet/ops`,
	}
	file := configFlag(cmd)
	asJSON := jsonFlag(cmd, "the answer on one line")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		reply, err := notifyAsk(cmd, *file, "/notify/test", args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			return printCompact(cmd.OutOrStdout(), reply)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s took the test message\n", args[0])
		return err
	}
	return cmd
}

func notifyAsk(cmd *cobra.Command, file, path, target string) ([]byte, error) {
	cfg, err := loadConfig(file)
	if err != nil {
		return nil, err
	}
	return askHub(cmd.Context(), cfg, http.MethodPost, path, map[string]string{"target": target})
}
