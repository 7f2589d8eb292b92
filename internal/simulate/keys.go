package simulate

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"felhom.eu/hub/internal/hub"
)

// Credential is what one agent reports with.
type Credential struct {
	HostID string
	APIKey hub.Secret
	File   string // the host's file in the fleet folder; may be empty
}

// ReadKeys reads what `hub fleet enroll --json` prints: one object a line with
// host_id, api_key and file. Of two lines for one host the later counts, as
// after a rotation. Errors name the line and never a key.
func ReadKeys(r io.Reader) ([]Credential, error) {
	var credentials []Credential
	place := make(map[string]int)
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		c, err := readKey(lines.Bytes())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if i, again := place[c.HostID]; again {
			credentials[i] = c
			continue
		}
		place[c.HostID] = len(credentials)
		credentials = append(credentials, c)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(credentials) == 0 {
		return nil, errors.New("no keys: write the output of hub fleet enroll --json there")
	}
	return credentials, nil
}

func readKey(line []byte) (Credential, error) {
	var c struct {
		HostID string `json:"host_id"`
		APIKey string `json:"api_key"`
		File   string `json:"file"`
	}
	if err := json.Unmarshal(line, &c); err != nil {
		return Credential{}, errors.New(`not a JSON object as {"host_id":"…","api_key":"…","file":"…"}`)
	}
	if !hub.ValidHostID(c.HostID) {
		return Credential{}, errors.New("host_id is missing or no host id")
	}
	if _, err := hub.DigestKey(c.APIKey); err != nil {
		return Credential{}, fmt.Errorf("api_key of %s: %w", c.HostID, err)
	}
	return Credential{HostID: c.HostID, APIKey: hub.NewSecret(c.APIKey), File: c.File}, nil
}
