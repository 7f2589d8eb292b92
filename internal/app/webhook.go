package app

import (
	"fmt"
	"io"
	"os"
	"strings"

	"felhom.eu/hub/internal/httpapi"
	"felhom.eu/hub/internal/hub"
)

const maxWebhookSecret = 4 << 10

// webhook is what git servers call; nil where fleet.webhook_secret_file names
// none. A file that cannot be used is a mistake now, an empty one is a choice.
func (a *App) webhook() (*httpapi.Webhook, error) {
	file := a.cfg.Fleet.WebhookSecretFile
	if file == "" {
		return nil, nil
	}
	secret, err := webhookSecret(file)
	if err != nil {
		return nil, err
	}
	if secret.Empty() {
		a.log.Warn("the webhook is switched off: its secret is empty", "fleet.webhook_secret_file", file)
	}
	return &httpapi.Webhook{
		Secret: func() (hub.Secret, error) { return webhookSecret(file) }, // so that it can be replaced
		Pull:   a.Reload,
	}, nil
}

// webhookSecret reads the file without the end of its line.
func webhookSecret(file string) (hub.Secret, error) {
	f, err := os.Open(file)
	if err != nil {
		return hub.Secret{}, fmt.Errorf("fleet.webhook_secret_file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return hub.Secret{}, fmt.Errorf("fleet.webhook_secret_file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return hub.Secret{}, fmt.Errorf("fleet.webhook_secret_file: %s may be read by others: chmod 600 %[1]s", file)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxWebhookSecret+1))
	if err != nil {
		return hub.Secret{}, fmt.Errorf("fleet.webhook_secret_file: %w", err)
	}
	if len(text) > maxWebhookSecret {
		return hub.Secret{}, fmt.Errorf("fleet.webhook_secret_file: %s is no secret: it has over %d bytes", file, maxWebhookSecret)
	}
	return hub.NewSecret(strings.TrimRight(string(text), "\r\n")), nil
}
