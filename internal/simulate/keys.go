package simulate

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"felhom.eu/hub/internal/hub"
)

// Credential is what one agent reports with, or the controllers of one customer.
type Credential struct {
	HostID   string // empty where it is a customer's
	APIKey   hub.Secret
	File     string // the host's file in the fleet folder; may be empty
	Customer string // of a customer's key; empty where it is a host's
}

// customer returns whom a host belongs to by the folder of its file; empty: unknown.
func (c Credential) customer() string {
	folders := strings.Split(path.Dir(c.File), "/")
	if n := len(folders); n > 2 && folders[n-1] == "hosts" && folders[n-3] == "customers" {
		return folders[n-2]
	}
	return ""
}

// ReadKeys reads what `hub fleet enroll --json` prints, one object a line with
// host_id, api_key and file, and of `hub fleet key add customer/… --json` its owner and
// api_key. Of two lines for one host or customer the later counts, as after a rotation.
// Errors name the line and never a key.
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
		whose := cmp.Or(c.HostID, hub.CustomerOwner(c.Customer).String())
		if i, again := place[whose]; again {
			credentials[i] = c
			continue
		}
		place[whose] = len(credentials)
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
		Owner  string `json:"owner"`
		APIKey string `json:"api_key"`
		File   string `json:"file"`
	}
	if err := json.Unmarshal(line, &c); err != nil {
		return Credential{}, errors.New(`not a JSON object as {"host_id":"…","api_key":"…","file":"…"}`)
	}
	owner := hub.HostOwner(c.HostID)
	if c.HostID == "" && c.Owner != "" {
		var err error
		if owner, err = hub.ParseOwner(c.Owner); err != nil || owner.Kind != hub.OwnerCustomer {
			return Credential{}, errors.New("owner is no customer: host keys have a host_id, and global keys are not for agents")
		}
	} else if !hub.ValidHostID(c.HostID) {
		return Credential{}, errors.New("host_id is missing or no host id")
	}
	if _, err := hub.DigestKey(c.APIKey); err != nil {
		return Credential{}, fmt.Errorf("api_key of %s: %w", owner.Name, err)
	}
	key := Credential{HostID: owner.Name, APIKey: hub.NewSecret(c.APIKey), File: c.File}
	if owner.Kind == hub.OwnerCustomer {
		key.HostID, key.Customer = "", owner.Name
	}
	return key, nil
}
