module github.com/weirmesh/weir/examples/plugins/standard

go 1.26.0

require github.com/weirmesh/weir/plugins-sdk v0.0.0

replace github.com/weirmesh/weir/plugins-sdk => ../../../plugins-sdk
