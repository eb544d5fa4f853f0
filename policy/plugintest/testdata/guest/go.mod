module github.com/weirmesh/weir/policy/plugintest/testdata/guest

go 1.26.0

require github.com/weirmesh/weir/plugins-sdk v0.0.0

replace github.com/weirmesh/weir/plugins-sdk => ../../../../plugins-sdk
