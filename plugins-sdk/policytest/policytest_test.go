package policytest

import (
	"strings"
	"testing"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

// complaints is a testing.TB that keeps what it is told.
type complaints struct {
	testing.TB
	errors []string
}

func (c *complaints) Errorf(format string, args ...any) { c.errors = append(c.errors, format) }

type misspelt struct{}

func (misspelt) OnRequest(*sdk.Request) sdk.Action { return sdk.Continue }
func (misspelt) OnReponse(*sdk.Response) sdk.Action {
	return sdk.Continue
}

type wrongArguments struct{}

func (wrongArguments) OnRequest(*sdk.Request) sdk.Action  { return sdk.Continue }
func (wrongArguments) OnResponse(*sdk.Request) sdk.Action { return sdk.Continue }

func TestMethodsThatAreNeverCalledAreFound(t *testing.T) {
	for name, handler := range map[string]sdk.Handler{"misspelt": misspelt{}, "wrong arguments": wrongArguments{}} {
		c := &complaints{TB: t}
		Start(c, func(struct{}) (sdk.Handler, error) { return handler, nil }, "")
		if len(c.errors) != 1 || !strings.Contains(c.errors[0], "never called") {
			t.Errorf("%s: complaints are %q", name, c.errors)
		}
	}
}
