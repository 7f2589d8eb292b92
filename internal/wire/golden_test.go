package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"
	"time"

	"felhom.eu/hub/internal/hub"
)

// The digests that the contract names: testdata holds the agent project's own
// copies, byte for byte.
func TestContractCopies(t *testing.T) {
	for name, want := range map[string]string{
		"host-report.golden.json":       "9fecf8d9d41f908b8a9df8461608d21c67cefaad306321892c206e7f530c2c5f",
		"host-report.full.json":         "ef0b8ea61a6a0d15bae9e49597ca49a4021cb1c4e588e33a483fcf3fc947c24c",
		"envelope.golden.json":          "799104e2b61cc067626ac3da0be019296968c6e50a4e18125c3902440a9468de",
		"controller-report.golden.json": "944ac893e9c25821758b06a3607ea43d36d5a5960e651223597c5cab7dfc4ae0",
	} {
		sum := sha256.Sum256(golden(t, name))
		if got := hex.EncodeToString(sum[:]); got != want {
			t.Errorf("testdata/%s: SHA-256 %s, the contract says %s", name, got, want)
		}
	}
}

func TestEnvelope(t *testing.T) {
	if got, want := Envelope(900*time.Second, false), golden(t, "envelope.golden.json"); !bytes.Equal(got, want) {
		t.Errorf("envelope %q, want %q", got, want)
	}
	want := `{"status":"ok","poll_interval_seconds":1,"blocked":true,"desired_generation":0,"has_signed_ops":false}` + "\n"
	if got := Envelope(300*time.Millisecond, true); string(got) != want {
		t.Errorf("envelope %q, want %q", got, want)
	}
}

func TestProblemTellsOnlyTheMessage(t *testing.T) {
	e := &hub.Error{Code: hub.Unauthorized, Reason: "expired", Message: "no valid key", Hint: "rotate", Cause: bytes.ErrTooLarge}
	want := `{"type":"about:blank","title":"Unauthorized","status":401,"detail":"no valid key"}` + "\n"
	if got := ProblemJSON(e, 401); string(got) != want {
		t.Errorf("problem %s, want %s", got, want)
	}
}

func TestMintRequest(t *testing.T) {
	for _, c := range []struct {
		body, reason string
		want         MintRequest
	}{
		{`{"customer_id":"acme"}`, "", MintRequest{CustomerID: "acme"}},
		{`{"customer_id":"acme","display_name":"pve 01 – Köln"}`, "", MintRequest{"acme", "pve 01 – Köln"}},
		{``, "not_json", MintRequest{}},
		{`{"customer_id":"acme"} x`, "not_json", MintRequest{}},
		{`{"customer_id":"acme","customer_id":"beta"}`, "not_json", MintRequest{}},
		{`{"customer_id":"acme","Customer_ID":"beta"}`, "not_json", MintRequest{}},
		{`{"customer_id":"acme","display":"x"}`, "not_json", MintRequest{}},
		{`{"customer_id":7}`, "not_json", MintRequest{}},
		{`{}`, "customer_id", MintRequest{}},
		{`{"customer_id":"../acme"}`, "customer_id", MintRequest{}},
		{`{"customer_id":"acme","display_name":"a\nb: c"}`, "display_name", MintRequest{}},
	} {
		got, err := DecodeMintRequest([]byte(c.body))
		if c.reason == "" && err != nil || c.reason != "" && (err == nil || hub.ReasonOf(err) != c.reason) || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v, reason %q", c.body, got, err, c.want, c.reason)
		}
	}
}

func TestMintReplyRevealsTheKeyOnce(t *testing.T) {
	want := `{"host_id":"acme-00000001","api_key":"k","commit":"c","branch":"main"}` + "\n"
	if got := EncodeMintReply("acme-00000001", hub.NewSecret("k"), "c", "main"); string(got) != want {
		t.Errorf("reply %s, want %s", got, want)
	}
}
