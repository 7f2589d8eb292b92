package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"felhom.eu/hub/internal/hub"
)

// MaxURL is how long a channel's URL may be, in bytes.
const MaxURL = 2 << 10

// ErrURLPayload means that what is sealed is not the URL of a channel; a key, say.
var ErrURLPayload = errors.New("what is sealed is not a channel's URL of the form this hub writes")

// ChannelError means that a good seal of a URL stands in the wrong place.
type ChannelError struct {
	Owner, Wanted          hub.Owner // the one inside, and the one it was opened for
	Channel, WantedChannel string
}

// Error names both owners and channels.
func (e *ChannelError) Error() string {
	return fmt.Sprintf("the seal was made for channel %s of %s, not for channel %s of %s", e.Channel, e.Owner, e.WantedChannel, e.Wanted)
}

// URLPayload is the URL of a channel, to be sealed.
type URLPayload struct {
	Owner   hub.Owner // the fleet or a customer
	Channel string
	URL     hub.Secret
}

// urlJSON is the form of a URLPayload, version 1. The order of the fields is part
// of it.
type urlJSON struct {
	Version int    `json:"v"`
	Owner   string `json:"owner"`
	Channel string `json:"channel"`
	URL     string `json:"url"`
}

// SealURL encrypts p to every recipient, as Seal does a key.
func SealURL(p URLPayload, to []Recipient) (armored string, sealedTo []string, err error) {
	if !p.valid() {
		return "", nil, fmt.Errorf("channel %s of %s: its URL is at most %d bytes of UTF-8, and not empty", p.Channel, p.Owner, MaxURL)
	}
	return sealText(p.encode(), to)
}

// valid reports whether p can be sealed and opened again.
func (p URLPayload) valid() bool {
	url := p.URL.Reveal()
	return p.Owner.Kind != hub.OwnerHost && hub.ValidCustomerName(p.Channel) && url != "" && len(url) <= MaxURL && strings.ToValidUTF8(url, "") == url
}

// OpenURL decrypts what SealURL made with the first identity that can. What was made
// for another owner or channel is refused with a *ChannelError. It fails as OpenAs
// does else, with ErrURLPayload for ErrPayload.
func OpenURL(owner hub.Owner, channel, armored string, identities []Identity) (hub.Secret, error) {
	text, err := openText(armored, identities)
	if err != nil {
		return hub.Secret{}, err
	}
	p, err := decodeURL(text)
	if err != nil {
		return hub.Secret{}, err
	}
	if p.Owner != owner || p.Channel != channel {
		return hub.Secret{}, &ChannelError{Owner: p.Owner, Wanted: owner, Channel: p.Channel, WantedChannel: channel}
	}
	return p.URL, nil
}

// OpenURL is the function of that name with the Opener's identities. It remembers
// nothing: a URL is needed as it is, and is kept in no cache.
func (o *Opener) OpenURL(owner hub.Owner, channel, armored string) (hub.Secret, error) {
	return OpenURL(owner, channel, armored, o.identities)
}

func (p URLPayload) encode() []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false) // URLs are full of &, and a person may make a seal by hand
	if err := e.Encode(urlJSON{version, p.Owner.String(), p.Channel, p.URL.Reveal()}); err != nil {
		panic("seal: " + err.Error()) // three strings and a number: cannot happen
	}
	return bytes.TrimSpace(out.Bytes())
}

// decodeURL accepts exactly what encode writes, as decode does.
func decodeURL(text []byte) (URLPayload, error) {
	const most = 6*MaxURL + maxPayload // each character may be escaped
	tooLong := len(text) > most
	text = bytes.TrimSpace(text)
	var raw urlJSON
	if tooLong || json.Unmarshal(text, &raw) != nil || raw.Version != version {
		return URLPayload{}, ErrURLPayload
	}
	owner, err := hub.ParseOwner(raw.Owner)
	p := URLPayload{Owner: owner, Channel: raw.Channel, URL: hub.NewSecret(raw.URL)}
	if err != nil || !p.valid() || !bytes.Equal(p.encode(), text) {
		return URLPayload{}, ErrURLPayload
	}
	return p, nil
}
