std = "lua54+luajit"
max_line_length = 110
exclude_files = { "build/**", "lua/**/*.d.lua" }
files["tests/**"] = { globals = { "Test*", "test*" } }
