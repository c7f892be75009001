pub fn main()->i32{0} pub fn passwd_line(n:&str)->Result<String,String>{todo!()}
