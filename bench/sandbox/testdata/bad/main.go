// Command bad is a plugin that does what no plugin should, on every request; or,
// to compare, nothing.
package main

import (
	"fmt"

	sdk "github.com/weirmesh/weir/plugins-sdk"
)

type config struct {
	Do string `json:"do"`
}

type bad struct {
	do   string
	kept [][]byte
	n    int
}

// OnRequest goes wrong.
func (b *bad) OnRequest(*sdk.Request) sdk.Action {
	switch b.do {
	case "behaves":
		return sdk.Continue
	case "loops":
		for {
			b.n++
		}
	case "allocates":
		for {
			b.kept = append(b.kept, make([]byte, 64<<10))
		}
	}
	panic(fmt.Sprint("it ", b.do))
}

func init() { sdk.Register(func(c config) (sdk.Handler, error) { return &bad{do: c.Do}, nil }) }

func main() {}
