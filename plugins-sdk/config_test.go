package sdk_test

import (
	"errors"
	"strings"
	"testing"

	sdk "github.com/weirmesh/weir/plugins-sdk"
	"github.com/weirmesh/weir/plugins-sdk/policytest"
)

type settings struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
}

func (s *settings) Default() { s.Name, s.Count = "default", 3 }

func (s settings) Validate() error {
	if s.Count > 10 {
		return errors.New("count: at most 10")
	}
	return nil
}

func TestConfiguration(t *testing.T) {
	for _, c := range []struct {
		config  string
		want    settings
		refusal string
	}{
		{"", settings{"default", 3}, ""},
		{"{}", settings{"default", 3}, ""},
		{`{"name": "x"}`, settings{"x", 3}, ""},
		{`{"count": 0}`, settings{"default", 0}, ""},
		{`{"count": 11}`, settings{}, "check configuration: count: at most 10"},
		{`{"cuont": 1}`, settings{}, `read configuration: json: unknown field "cuont"`},
		{`{"count": "1"}`, settings{}, "read configuration: json: cannot unmarshal string"},
		{`{} {}`, settings{}, "something behind its end"},
		{`{`, settings{}, "read configuration: unexpected EOF"},
	} {
		var got settings
		refusal := policytest.Refusal(t, func(s settings) (sdk.Handler, error) {
			got = s
			return &probe{}, nil
		}, c.config)
		if got != c.want || !strings.Contains(refusal, c.refusal) || (refusal == "") != (c.refusal == "") {
			t.Errorf("%s: got %+v, refused with %q; want %+v, %q", c.config, got, refusal, c.want, c.refusal)
		}
	}
}

func TestAHandlerWithoutMethodsIsRefused(t *testing.T) {
	refusal := policytest.Refusal(t, func(struct{}) (sdk.Handler, error) { return struct{}{}, nil }, "")
	if !strings.Contains(refusal, "none of the methods") {
		t.Errorf("refused with %q", refusal)
	}
}

type onlyHeads struct{}

func (onlyHeads) OnRequest(*sdk.Request) sdk.Action   { return sdk.Continue }
func (onlyHeads) OnResponse(*sdk.Response) sdk.Action { return sdk.Continue }

func TestTheHostIsToldWhatToCall(t *testing.T) {
	for name, c := range map[string]struct {
		handler sdk.Handler
		want    byte
	}{
		"two heads, and nothing at the end": {onlyHeads{}, 1 | 4 | 16 | 32 | 64},
		"everything":                        {&probe{}, 1 | 2 | 4 | 8 | 64},
	} {
		host := policytest.NewHost()
		var told []byte
		host.Foreign("weir.phases", func(args []byte) ([]byte, error) {
			told = args
			return nil, nil
		})
		policytest.StartOn(t, host, func(struct{}) (sdk.Handler, error) { return c.handler, nil }, "")
		if len(told) != 1 || told[0] != c.want {
			t.Errorf("%s: told %v, want %d", name, told, c.want)
		}
	}
}
