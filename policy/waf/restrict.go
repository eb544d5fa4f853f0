package waf

import (
	"errors"
	"sync"

	"github.com/corazawaf/coraza/v3/experimental/plugins"
	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"
)

// restrict takes from the engine what would reach outside of it, and puts a parser
// of multipart bodies into it that writes no files, and a quicker @rx. The engine's registries are
// the process's, so this happens once; nobody else in it uses the engine.
var restrict = sync.OnceFunc(func() {
	for _, name := range []string{"inspectFile", "validateSchema", "ipMatchFromFile", "ipMatchF"} {
		plugins.RegisterOperator(name, refuseOperator("@"+name+" reads files or runs programs, which a policy may not"))
	}
	plugins.RegisterOperator("rbl", refuseOperator("@rbl asks the DNS for each request, which a policy may not"))
	plugins.RegisterOperator("geoLookup", refuseOperator("@geoLookup needs a file, which a policy may not read"))
	for _, name := range []string{"exec", "setenv", "initcol"} {
		plugins.RegisterAction(name, func() plugintypes.Action { return refusedAction{name} })
	}
	plugins.RegisterOperator("rx", newRx)
	plugins.RegisterBodyProcessor("multipart", func() plugintypes.BodyProcessor { return multipartParser{} })
})

func refuseOperator(why string) plugintypes.OperatorFactory {
	return func(plugintypes.OperatorOptions) (plugintypes.Operator, error) { return nil, errors.New(why) }
}

// refusedAction is an action that no rule may have. initcol is among them for
// the core rules' sake alone, which have it where nobody gets to.
type refusedAction struct{ name string }

func (a refusedAction) Init(plugintypes.RuleMetadata, string) error {
	if a.name == "initcol" {
		return nil
	}
	return errors.New(a.name + " changes the process, which a policy may not")
}

func (refusedAction) Evaluate(plugintypes.RuleMetadata, plugintypes.TransactionState) {}

func (refusedAction) Type() plugintypes.ActionType { return plugintypes.ActionTypeNondisruptive }
