package simulate

import (
	"reflect"
	"strings"
	"testing"

	"felhom.eu/hub/internal/hub"
)

func TestReadKeys(t *testing.T) {
	one, two := strings.Repeat("1", 64), strings.Repeat("2", 64)
	for name, c := range map[string]struct {
		text string
		want []Credential
		says string
	}{
		"as enroll prints them": {
			text: `{"host_id":"acme-1","api_key":"` + one + `","file":"customers/acme/hosts/acme-1.yaml"}` + "\n\n" +
				`{"host_id":"acme-2","api_key":"` + two + `"}`,
			want: []Credential{{"acme-1", hub.NewSecret(one), "customers/acme/hosts/acme-1.yaml", ""}, {"acme-2", hub.NewSecret(two), "", ""}},
		},
		"the later key of a host counts": {
			text: `{"host_id":"acme-1","api_key":"` + one + "\"}\n" + `{"host_id":"acme-1","api_key":"` + two + `"}`,
			want: []Credential{{"acme-1", hub.NewSecret(two), "", ""}},
		},
		"a customer's, as key add prints it": {
			text: `{"owner":"customer/acme","key_id":"k1","api_key":"` + one + `","file":"f"}` + "\n" + `{"owner":"customer/acme","key_id":"k2","api_key":"` + two + `"}`,
			want: []Credential{{"", hub.NewSecret(two), "", "acme"}},
		},
		"a global key":  {text: `{"owner":"fleet","api_key":"` + one + `"}`, says: "owner is no customer"},
		"empty":         {text: "\n", says: "no keys"},
		"no JSON":       {text: one, says: "line 1"},
		"no host":       {text: "\n" + `{"api_key":"` + one + `"}`, says: "line 2: host_id"},
		"a bad host id": {text: `{"host_id":"Acme","api_key":"` + one + `"}`, says: "host_id"},
		"a bad key":     {text: `{"host_id":"acme-1","api_key":"` + one[1:] + `"}`, says: "api_key of acme-1"},
	} {
		got, err := ReadKeys(strings.NewReader(c.text))
		if (err == nil) != (c.says == "") || (err != nil && !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: error %v, want %q", name, err, c.says)
		}
		if err != nil && strings.Contains(err.Error(), one[1:]) {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
